//! How a command ends when it does not succeed: one line on standard error and an exit code.

use std::io;
use std::process::ExitCode;

use connectrpc::ConnectError;
use hydrant_contracts::{Code, Error};
use serde_json::json;

use crate::output::{Output, printable};

/// What a command returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something that is told on standard error; its code makes the exit code.
    Error(Error),
    /// Standard output can't be written. A closed pipe is no failure: the reader has had enough.
    Output(io::Error),
    /// All is said already; ends with this exit code.
    Exit(u8),
}

impl Failure {
    /// Tells the person or the program that called, and gives the exit code.
    pub(crate) fn report(self, output: &Output) -> ExitCode {
        match self {
            Failure::Exit(code) => ExitCode::from(code),
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Failure::Output(error) => {
                eprintln!("hydrant: cannot write the output: {error}");
                ExitCode::FAILURE
            }
            Failure::Error(error) if output.json => {
                eprintln!("{}", error_json(&error));
                ExitCode::from(error.exit_code())
            }
            Failure::Error(error) => {
                eprintln!("hydrant: {}", printable(&error.to_string()));
                ExitCode::from(error.exit_code())
            }
        }
    }
}

/// The error as `--json` shows it.
pub(crate) fn error_json(error: &Error) -> serde_json::Value {
    json!({"error": {
        "code": error.code.as_str(),
        "reason": error.reason,
        "message": error.message,
        "mend": error.mend,
        "fault": error.fault.as_str(),
        "retryable": error.retryable,
    }})
}

/// What the caller must mend: exit code 2.
pub(crate) fn wrong(
    reason: &'static str,
    message: impl Into<String>,
    mend: impl Into<String>,
) -> Failure {
    Failure::Error(Error::new(Code::FailedPrecondition, reason, message).mend(mend))
}

/// What the system refused: exit code 1.
pub(crate) fn system(
    what: impl std::fmt::Display,
    error: &io::Error,
    mend: impl Into<String>,
) -> Failure {
    let error = Error::new(Code::Internal, "system", format!("{what}: {error}")).mend(mend);
    Failure::Error(error)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Failure::Error(Error::from_connect(&error))
    }
}

impl From<hydrant_contracts::InvalidName> for Failure {
    fn from(error: hydrant_contracts::InvalidName) -> Self {
        Failure::Error(error.into())
    }
}

impl From<hydrant_runtime::config::ConfigError> for Failure {
    fn from(error: hydrant_runtime::config::ConfigError) -> Self {
        let code = Code::InvalidArgument;
        Failure::Error(Error::new(code, "invalid_configuration", error.to_string()))
    }
}
