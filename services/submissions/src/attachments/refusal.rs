//! Why a request of tus is refused, each with the status that tus wants.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hydrant_records::RecordsError;
use hydrant_sdk::{Code, Error, Problem};

/// An error with its status.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) error: Error,
    pub(super) status: Option<StatusCode>,
}

/// The status of a checksum that does not fit.
const CHECKSUM_MISMATCH: u16 = 460;

impl Refusal {
    fn new(
        status: StatusCode,
        code: Code,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            error: Error::new(code, reason, message),
            status: Some(status),
        }
    }

    fn mend(mut self, mend: impl Into<String>) -> Self {
        self.error = self.error.mend(mend);
        self
    }

    /// Whether the bytes themselves are to blame: sending them again would not help.
    pub(super) fn blames_bytes(&self) -> bool {
        let status = self.status.map(|status| status.as_u16());
        matches!(status, Some(CHECKSUM_MISMATCH | 413))
    }

    fn retryable(mut self) -> Self {
        self.error.retryable = true;
        self
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        // A commit without an answer: the same request tells whether it has happened.
        let is_uncertain = error.reason == "records_uncertain";
        let status = is_uncertain.then_some(StatusCode::SERVICE_UNAVAILABLE);
        Self { error, status }
    }
}

impl From<RecordsError> for Refusal {
    fn from(error: RecordsError) -> Self {
        Self::from(Error::from(error)).retryable()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let is_version = self.status == Some(StatusCode::PRECONDITION_FAILED);
        let mut answer = match self.status {
            Some(status) => Problem(self.error).with_status(status),
            None => Problem(self.error).into_response(),
        };
        if is_version {
            let name = HeaderName::from_static("tus-version");
            let version = HeaderValue::from_static(super::tus::VERSION);
            answer.headers_mut().insert(name, version);
        }
        answer
    }
}

pub(super) fn unknown_submission(id: &str) -> Refusal {
    crate::service::unknown(id).into()
}

pub(super) fn unknown_upload() -> Refusal {
    let message = "there is no such upload";
    Refusal::new(
        StatusCode::NOT_FOUND,
        Code::NotFound,
        "unknown_upload",
        message,
    )
    .mend("begin a new one with POST; its URL is in the header `Location`")
}

pub(super) fn gone() -> Refusal {
    let message = "this upload has been taken away, or joined with others";
    Refusal::new(StatusCode::GONE, Code::NotFound, "upload_gone", message).mend("begin a new one")
}

pub(super) fn expired() -> Refusal {
    let message = "nothing of this upload came for too long";
    Refusal::new(StatusCode::GONE, Code::NotFound, "upload_expired", message)
        .mend("begin a new one")
}

pub(super) fn closed() -> Refusal {
    let message = "the submission is closed: nothing is added to it, and nothing taken away";
    let reason = "submission_closed";
    Refusal::new(
        StatusCode::FORBIDDEN,
        Code::FailedPrecondition,
        reason,
        message,
    )
    .mend("send it as another submission")
}

pub(super) fn wrong_version() -> Refusal {
    let message = "this speaks version 1.0.0 of tus, and the request no version that is known";
    let reason = "tus_version";
    Refusal::new(
        StatusCode::PRECONDITION_FAILED,
        Code::FailedPrecondition,
        reason,
        message,
    )
    .mend("send the header `Tus-Resumable: 1.0.0`")
}

pub(super) fn bad_header(name: &str, why: &str) -> Refusal {
    let message = format!("the header {name} can't be used: {why}");
    Refusal::new(
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        "bad_header",
        message,
    )
}

pub(super) fn wrong_offset(offset: u64) -> Refusal {
    let message = format!("the upload goes on at byte {offset}, and the request does not");
    Refusal::new(StatusCode::CONFLICT, Code::Aborted, "wrong_offset", message)
        .mend("ask with HEAD, and go on at `Upload-Offset`")
}

pub(super) fn taken_over() -> Refusal {
    let message = "a newer request goes on with this upload";
    Refusal::new(StatusCode::CONFLICT, Code::Aborted, "taken_over", message)
        .mend("ask with HEAD how far it is")
}

pub(super) fn swept() -> Refusal {
    let message = "this request took so long that its bytes were given up";
    Refusal::new(StatusCode::CONFLICT, Code::Aborted, "swept", message)
        .mend("ask with HEAD, and go on at `Upload-Offset`")
}

pub(super) fn too_large(most: u64) -> Refusal {
    let message = format!("an attachment of this form has at most {most} bytes");
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Code::OutOfRange,
        "too_large",
        message,
    )
}

pub(super) fn beyond_length(length: u64) -> Refusal {
    let message = format!("this upload has {length} bytes, and more are sent");
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Code::OutOfRange,
        "beyond_length",
        message,
    )
    .mend("ask with HEAD, and send the rest only")
}

pub(super) fn too_many_pieces() -> Refusal {
    let message = "this upload came in too many small parts";
    let reason = "too_many_pieces";
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Code::ResourceExhausted,
        reason,
        message,
    )
    .mend("begin a new one, and send it in larger parts")
}

pub(super) fn wrong_content_type() -> Refusal {
    let message = "the bytes of an upload are sent as application/offset+octet-stream";
    let reason = "wrong_content_type";
    Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::InvalidArgument,
        reason,
        message,
    )
    .mend("send the header `Content-Type: application/offset+octet-stream`")
}

pub(super) fn type_not_taken(media: &str, taken: &str) -> Refusal {
    let message = format!(
        "this form takes no attachment of the type {}",
        media.escape_debug()
    );
    let reason = "type_not_taken";
    Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::InvalidArgument,
        reason,
        message,
    )
    .mend(format!(
        "it takes {taken}; say the type as `filetype` in `Upload-Metadata`"
    ))
}

pub(super) fn takes_none(form: &str) -> Refusal {
    let message = format!("the form `{}` takes no attachments", form.escape_debug());
    let reason = "no_attachments";
    Refusal::new(
        StatusCode::FORBIDDEN,
        Code::FailedPrecondition,
        reason,
        message,
    )
}

pub(super) fn too_many(most: u32) -> Refusal {
    let message = format!("a submission of this form has at most {most} attachments");
    let reason = "too_many_attachments";
    Refusal::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        Code::FailedPrecondition,
        reason,
        message,
    )
    .mend("take another one away with DELETE first")
}

pub(super) fn key_reused() -> Refusal {
    let message = "another upload has this Idempotency-Key";
    let reason = "key_reused";
    Refusal::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        Code::AlreadyExists,
        reason,
        message,
    )
    .mend("make a new UUID for each attachment")
}

pub(super) fn checksum_mismatch() -> Refusal {
    let message = "the bytes that came have another checksum; none of them is kept";
    let status = StatusCode::from_u16(CHECKSUM_MISMATCH).unwrap_or(StatusCode::BAD_REQUEST);
    Refusal::new(status, Code::DataLoss, "checksum_mismatch", message).mend("send them again")
}

pub(super) fn is_final() -> Refusal {
    let message = "this upload is joined from others: nothing is added to it";
    let reason = "final_upload";
    Refusal::new(
        StatusCode::FORBIDDEN,
        Code::FailedPrecondition,
        reason,
        message,
    )
}

pub(super) fn cannot_join(why: &str) -> Refusal {
    let message = format!("these uploads can't be joined: {why}");
    Refusal::new(
        StatusCode::BAD_REQUEST,
        Code::FailedPrecondition,
        "cannot_join",
        message,
    )
    .mend("join each whole upload with `Upload-Concat: partial` of the same submission once")
}

pub(super) fn broken_off() -> Refusal {
    let message = "the upload broke off; what came of it is kept";
    Refusal::new(
        StatusCode::BAD_REQUEST,
        Code::Aborted,
        "broken_off",
        message,
    )
    .mend("ask with HEAD, and go on at `Upload-Offset`")
    .retryable()
}

pub(super) fn too_slow() -> Refusal {
    let message = "nothing more came for too long; what came is kept";
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        Code::DeadlineExceeded,
        "too_slow",
        message,
    )
    .mend("ask with HEAD, and go on at `Upload-Offset`")
    .retryable()
}

pub(super) fn stopping() -> Refusal {
    let message = "the service is stopping; what came is kept";
    let reason = "stopping";
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        Code::Unavailable,
        reason,
        message,
    )
    .mend("ask with HEAD, and go on at `Upload-Offset`")
    .retryable()
}

pub(super) fn not_whole() -> Refusal {
    let message = "this attachment is not whole";
    Refusal::new(
        StatusCode::CONFLICT,
        Code::FailedPrecondition,
        "not_whole",
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_know_whether_it_has_happened_asks_again() {
        let error = Error::new(Code::Unknown, "records_uncertain", "it may have happened");
        let answer = Refusal::from(error).into_response();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
