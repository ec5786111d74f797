//! A request on its way to an instance: what is needed to send it, and to send it again.

use std::ops::Range;
use std::pin::Pin;

use super::body::Body;
use super::forward::Way;
use crate::decide::Route;
use crate::service::Instance;

/// How much of a request is kept, head and body, so that it can be sent again.
const MAX_REPLAY: u64 = 64 * 1024;

/// A request as instances get it. Kept over all attempts.
#[derive(Debug)]
pub(super) struct Request {
    /// The head, and the body as far as it is kept or not yet sent.
    pub(super) bytes: Vec<u8>,
    /// How many of them were sent in this attempt.
    pub(super) sent: usize,
    /// What is still to come from the client.
    pub(super) body: Body,
    /// `bytes` begins with the head and misses nothing.
    pub(super) whole: bool,
    /// Some of it was sent in an earlier attempt.
    pub(super) seen: bool,
    /// It goes through the node of another server, which may yet say that it was sent nowhere.
    pub(super) afar: bool,
    /// The node of the other server has a connection to the instance.
    pub(super) reached: bool,
    /// A repeat is safe.
    pub(super) repeatable: bool,
    /// HEAD: the answer has no body.
    pub(super) to_head: bool,
    /// The client speaks HTTP/1.1.
    pub(super) http11: bool,
    /// The client wants to send more requests on the connection.
    pub(super) keep_alive: bool,
    /// The client wants to change to another protocol.
    pub(super) wants_upgrade: bool,
    /// What was cut off the path.
    pub(super) cut: Box<[u8]>,
    /// Where the path begins in `bytes`, and how long it is there.
    pub(super) path: (usize, usize),
    /// Where the lines are that only this way has.
    pub(super) way: Range<usize>,
    /// The caller has a token.
    pub(super) has_token: bool,
    /// When the caller waits no longer.
    pub(super) deadline: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Request {
    /// Keeps more of the body, if it can still be needed and the limit allows; else everything
    /// that was sent is forgotten, and this must be sent straight on.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> bool {
        if self.is_kept_with(bytes.len() as u64) {
            self.bytes.extend_from_slice(bytes);
            return true;
        }
        self.forget_sent();
        false
    }

    /// Whether so much more would be kept.
    pub(super) fn is_kept_with(&self, more: u64) -> bool {
        let fits = self.bytes.len() as u64 + more <= MAX_REPLAY;
        self.whole && (self.may_come_back() || (self.repeatable && fits))
    }

    /// The node of the other server may yet say that it was sent nowhere.
    fn may_come_back(&self) -> bool {
        self.afar && !self.reached && self.whole
    }

    /// No more is read of a body that can't be kept, until the node of the other server has a
    /// connection to the instance.
    pub(super) fn is_held(&self) -> bool {
        self.may_come_back() && self.bytes.len() as u64 >= MAX_REPLAY
    }

    /// Whether the node that sends it holds back the rest of its body until it hears that there is
    /// a connection to the instance.
    pub(super) fn waits_for_word(&self) -> bool {
        match self.body {
            Body::Length(left) => self.bytes.len() as u64 + left > MAX_REPLAY,
            Body::Chunked(_) => true,
            Body::Done | Body::UntilClose => false,
        }
    }

    /// From now on it can't be sent again. All of `bytes` was sent.
    pub(super) fn forget_sent(&mut self) {
        self.whole = false;
        self.bytes.clear();
        self.sent = 0;
    }

    /// Not one byte was sent to the instance.
    pub(super) fn is_untouched(&self) -> bool {
        self.whole && self.sent == 0
    }

    /// It may be sent again although an instance may have seen it.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.repeatable && self.whole && self.body.is_done()
    }

    /// Sends it from its beginning again, though an instance may have seen it.
    pub(super) fn rewind(&mut self) {
        self.seen |= self.sent > 0;
        self.sent = 0;
    }

    /// Sends it from its beginning again: no instance has seen any of it. False when that is no
    /// longer possible.
    pub(super) fn take_back(&mut self) -> bool {
        if self.whole {
            self.sent = 0;
        }
        self.whole
    }

    /// Sends it to another instance, to which another way may lead.
    pub(super) fn readdress(
        &mut self,
        route: &Route<'_>,
        instance: &Instance,
        token: Option<&[u8]>,
    ) {
        self.rewind();
        let (start, len) = self.path;
        let target = [&self.cut, &self.bytes[start..start + len]].concat();
        let token = token.filter(|_| self.has_token);
        let (way, path) = Way::to(route, instance, &target, token);
        let mut lines = Vec::new();
        way.write(&mut lines);
        // What stands behind first, so that places before it stay what they are.
        let new = self.way.start..self.way.start + lines.len();
        self.bytes
            .splice(std::mem::replace(&mut self.way, new), lines);
        self.bytes.splice(start..start + len, path.iter().copied());
        self.way.start = self.way.start + path.len() - len;
        self.way.end = self.way.end + path.len() - len;
        self.path.1 = path.len();
        self.cut = way.cut.into();
    }
}
