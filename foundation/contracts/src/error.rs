use std::borrow::Cow;
use std::fmt;

use connectrpc::{ConnectError, ErrorCode, ErrorDetail};
use serde_json::{Value, json};

use crate::proto;

/// What kind of failure it is: the codes of Connect and gRPC.
pub type Code = ErrorCode;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request was wrong and will be wrong again.
    Caller,
    /// Hydrant or the service that answered.
    Ours,
    /// Something that we depend on: an instance, an engine, a third party.
    Theirs,
}

/// The error of every hop: what happened, whose fault it is, whether a repeat may help, and how
/// to mend it. Mapped to HTTP, Connect, gRPC and exit codes here and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind of failure.
    pub code: Code,
    /// What happened, for programs, as `no_healthy_instance`.
    pub reason: Cow<'static, str>,
    /// What happened, for people.
    pub message: String,
    /// Whose fault it is.
    pub fault: Fault,
    /// The same request may succeed later, unchanged.
    pub retryable: bool,
    /// How to mend it, for people; may be empty.
    pub mend: String,
}

/// The full name of the detail that carries the fields that Connect's own error lacks.
const INFO_TYPE: &str = "hydrant.v1.ErrorInfo";

impl Error {
    /// An error with the fault and the retryability that its code usually has.
    pub fn new(
        code: Code,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            fault: usual_fault(code),
            retryable: matches!(
                code,
                Code::Unavailable | Code::ResourceExhausted | Code::Aborted
            ),
            mend: String::new(),
        }
    }

    /// Says how to mend it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = mend.into();
        self
    }

    /// Says whose fault it is, where the code's usual one is wrong.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// The status of an HTTP answer that carries it, as Connect maps it.
    pub fn http_status(&self) -> u16 {
        self.code.http_status().as_u16()
    }

    /// The exit code of a command that fails with it: 2 for what the caller must mend, 3 for what
    /// was not found, 4 for what is refused, 5 for what may pass by itself, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self.code {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => 2,
            Code::NotFound | Code::Unimplemented => 3,
            Code::PermissionDenied | Code::Unauthenticated => 4,
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Canceled => 5,
            _ => 1,
        }
    }

    /// The body of an answer to a Connect caller: `application/json`.
    pub fn to_connect_json(&self) -> Vec<u8> {
        ConnectError::from(self.clone()).to_json().to_vec()
    }

    /// The body of an answer to any other caller: `application/problem+json` (RFC 9457).
    pub fn to_problem_json(&self) -> Vec<u8> {
        self.to_problem_json_of(self.http_status())
    }

    /// The same, in an answer with a status of its own, as 431, that no code maps to.
    pub fn to_problem_json_of(&self, status: u16) -> Vec<u8> {
        let mut problem = json!({
            "type": format!("urn:hydrant:error:{}", self.reason),
            "title": self.reason.replace('_', " "),
            "status": status,
            "detail": self.message,
            "code": self.code.as_str(),
            "reason": self.reason,
            "fault": self.fault.as_str(),
            "retryable": self.retryable,
        });
        if !self.mend.is_empty() {
            problem["mend"] = Value::from(self.mend.clone());
        }
        problem.to_string().into_bytes()
    }

    /// Reads an error that came over Connect or gRPC. One that was not made by us gets the fault
    /// and the retryability that its code usually has.
    pub fn from_connect(error: &ConnectError) -> Self {
        let message = error.message.clone().unwrap_or_default();
        let mut read = Self::new(error.code, error.code.as_str(), message);
        if let Some(info) = error.details.iter().find_map(decode_info) {
            read.reason = info.reason.into();
            read.fault = info
                .fault
                .as_known()
                .and_then(Fault::from_proto)
                .unwrap_or(read.fault);
            read.retryable = info.retryable;
            read.mend = info.mend;
        }
        read
    }
}

fn usual_fault(code: Code) -> Fault {
    match code {
        Code::Canceled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Aborted => Fault::Caller,
        Code::Unavailable | Code::DeadlineExceeded => Fault::Theirs,
        _ => Fault::Ours,
    }
}

fn decode_info(detail: &ErrorDetail) -> Option<proto::ErrorInfo> {
    use base64::Engine as _;
    use buffa::Message as _;
    if detail.type_url.rsplit('/').next() != Some(INFO_TYPE) {
        return None;
    }
    let value = detail.value.as_deref()?.trim_end_matches('=');
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(value)
        .ok()?;
    proto::ErrorInfo::decode_from_slice(&bytes).ok()
}

impl Fault {
    /// The fault as it stands in a problem document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::Caller => "caller",
            Fault::Ours => "ours",
            Fault::Theirs => "theirs",
        }
    }

    fn from_proto(fault: proto::Fault) -> Option<Self> {
        match fault {
            proto::Fault::FAULT_CALLER => Some(Fault::Caller),
            proto::Fault::FAULT_OURS => Some(Fault::Ours),
            proto::Fault::FAULT_THEIRS => Some(Fault::Theirs),
            proto::Fault::FAULT_UNSPECIFIED => None,
        }
    }
}

impl From<Fault> for proto::Fault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Caller => proto::Fault::FAULT_CALLER,
            Fault::Ours => proto::Fault::FAULT_OURS,
            Fault::Theirs => proto::Fault::FAULT_THEIRS,
        }
    }
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        let info = proto::ErrorInfo {
            reason: error.reason.into_owned(),
            fault: proto::Fault::from(error.fault).into(),
            retryable: error.retryable,
            mend: error.mend,
            ..Default::default()
        };
        ConnectError::new(error.code, error.message)
            .with_detail(ErrorDetail::from_message(INFO_TYPE, &info))
    }
}

impl From<crate::InvalidName> for Error {
    fn from(error: crate::InvalidName) -> Self {
        Self::new(Code::InvalidArgument, "invalid_name", error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_a_hop() {
        let error = Error::new(
            Code::PermissionDenied,
            "tier_refused",
            "service/a may not call",
        )
        .mend("call it from the tier orchestration")
        .fault(Fault::Caller);
        assert_eq!(
            Error::from_connect(&ConnectError::from(error.clone())),
            error
        );
    }

    #[test]
    fn a_foreign_error_gets_the_usual_fault() {
        let read = Error::from_connect(&ConnectError::new(Code::Unavailable, "gone"));
        assert_eq!(
            (read.fault, read.retryable, &*read.reason),
            (Fault::Theirs, true, "unavailable")
        );
    }

    #[test]
    fn a_problem_document_names_the_reason() {
        let error = Error::new(
            Code::Unavailable,
            "no_healthy_instance",
            "none of 2 answers",
        );
        let problem: Value = serde_json::from_slice(&error.to_problem_json()).unwrap();
        assert_eq!(problem["status"], 503);
        assert_eq!(problem["reason"], "no_healthy_instance");
        assert_eq!(problem["retryable"], true);
    }
}
