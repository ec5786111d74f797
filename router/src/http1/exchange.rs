//! One request at one instance: both directions are pumped at once, so an instance may answer
//! before it has read the request, and neither waits for the other.

use std::convert::Infallible;
use std::future::Future as _;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;

use super::body::{Body, Framing};
use super::connection::Client;
use super::head::{MAX_HEAD, fields};
use super::request::Request;
use super::response::{Onward, ResponseHead, parse_response};
use crate::clock::Moment;
use crate::instance::{ErrorKind, InFlight, Live};
use crate::refusal::Verdict;
use crate::retry::Tries;
use crate::scratch;
use crate::splice::{MIN_LENGTH, Side, Splice};
use crate::stream::Stream;
use crate::worker::Worker;

/// Up to here a body is copied behind its head and both leave in one plain write; above, the two
/// are written together from where they are.
const COPIED_BODY: usize = 4 * 1024;
/// The most interim answers (100 to 199) to one request.
const MAX_INTERIM: u32 = 32;
/// How much a client may send ahead of the answer that it waits for.
const MAX_AHEAD: usize = 64 * 1024;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The answer was forwarded to its end.
    Complete,
    /// The instance changed to another protocol, and the client knows.
    Upgraded,
    /// It failed before any of the answer was forwarded.
    Failed(ErrorKind),
    /// The node of another server tells what became of it at its instance. None of its answer was
    /// forwarded.
    There(Verdict),
    /// The instance answered, and by a rule another one is asked instead. None of the answer was forwarded.
    Unwanted,
    /// It failed while the answer was forwarded.
    Broken(ErrorKind),
    /// The client's body is malformed: how. None of the answer was forwarded.
    BadBody(&'static str),
    /// The client did not send its body in time. None of the answer was forwarded.
    ClientLate,
    /// The client went away, or does not take its answer.
    ClientGone,
}

/// How far the request is.
#[derive(Debug)]
enum Upload {
    /// What the request holds is on its way to the instance.
    Sending,
    /// More of the body is to come from the client.
    Reading,
    /// The rest of the body moves inside the kernel.
    Splicing(Splice),
    /// All was sent.
    Sent,
    /// The instance takes no more of it.
    Refused,
}

/// How far the answer is.
#[derive(Debug)]
enum Download {
    /// The head is to come.
    Head,
    /// More of the body is to come.
    Body(Body),
    /// The rest of the body moves inside the kernel.
    Splicing(Splice),
    /// All is there; what is not yet written goes out.
    Complete(End),
}

/// A request, an instance's connection, and what has become of both so far.
pub(super) struct Exchange<'x, 'l> {
    worker: &'x Worker,
    client: &'x mut Client,
    request: &'x mut Request,
    tries: Tries<'x>,
    in_flight: &'x mut InFlight<&'l Live>,
    pub(super) upstream: Stream,
    upload: Upload,
    download: Download,
    /// An incomplete head of an answer; after an upgrade, what came behind the head.
    pub(super) part: Vec<u8>,
    /// What the client has not taken yet.
    answer: Vec<u8>,
    written: usize,
    /// The client has not taken all that its stream holds.
    flushing: bool,
    interim: u32,
    /// Some of an answer was written to the client.
    pub(super) forwarded: bool,
    /// The client gets chunks without their framing.
    unchunk: bool,
    /// The answer ends where the connection ends.
    until_close: bool,
    /// The client's connection ends with this answer.
    pub(super) close: bool,
    /// The instance's connection can be used again, for so long; `None` when it cannot.
    pub(super) keep: Option<std::time::Duration>,
    /// A read ended where the buffer ended, or the kernel moved the bytes: the event loop must
    /// be told that nothing is left.
    pub(super) unsettled: bool,
}

impl<'x, 'l> Exchange<'x, 'l> {
    pub(super) fn new(
        worker: &'x Worker,
        client: &'x mut Client,
        request: &'x mut Request,
        tries: Tries<'x>,
        in_flight: &'x mut InFlight<&'l Live>,
        upstream: Stream,
    ) -> Self {
        let exchange = Self {
            answer: worker.scratch.take_buffer(),
            worker,
            client,
            request,
            tries,
            in_flight,
            upstream,
            upload: Upload::Sending,
            download: Download::Head,
            part: Vec::new(),
            written: 0,
            flushing: false,
            interim: 0,
            forwarded: false,
            unchunk: false,
            until_close: false,
            close: false,
            keep: None,
            unsettled: false,
        };
        exchange.touch();
        exchange
    }

    /// The client said that it sends no other request, and has sent nothing more. TLS says itself that it ends.
    pub(super) fn is_last(&self) -> bool {
        let client = &self.client;
        !self.request.keep_alive && client.stash.is_empty() && client.stream.plain().is_some()
    }

    /// Whether the whole request was sent to the instance.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.upload, Upload::Sent)
    }

    /// Whether the client takes any end of its connection for the end of the answer.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.until_close || self.unchunk
    }

    /// Moves both directions as far as they go.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(Err(Stop(end))) = self.poll_upload(cx) {
            return Poll::Ready(end);
        }
        if let Poll::Ready(Err(Stop(end))) = self.poll_download(cx) {
            return Poll::Ready(end);
        }
        let deadline = self.request.deadline.as_mut();
        if deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
            || self.client.alarm.rings()
        {
            return Poll::Ready(self.late());
        }
        if self.request.patience.is_some() && self.poll_patience(cx).is_ready() {
            return Poll::Ready(End::Failed(ErrorKind::Timeout));
        }
        Poll::Pending
    }

    /// Ready when this attempt is given up. One whose answer has begun is not.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.forwarded || !matches!(self.download, Download::Head) {
            return Poll::Pending;
        }
        let client_is_slow = self.awaits_body();
        self.request.poll_patience(cx, client_is_slow)
    }

    /// Time is up: who let the other wait?
    fn late(&self) -> End {
        if self.client_is_slow() {
            End::ClientGone
        } else if self.awaits_body() && !self.forwarded {
            End::ClientLate
        } else {
            self.failure(ErrorKind::Timeout)
        }
    }

    /// Some of the answer waits for the client to take it.
    fn client_is_slow(&self) -> bool {
        match &self.download {
            Download::Splicing(splice) => splice.waits_for_sink(),
            _ => self.flushing || self.written < self.answer.len(),
        }
    }

    /// The instance has all of the request that has come so far.
    fn awaits_body(&self) -> bool {
        match &self.upload {
            Upload::Reading => !self.request.is_held(),
            Upload::Splicing(splice) => !splice.waits_for_sink(),
            _ => false,
        }
    }

    fn failure(&self, kind: ErrorKind) -> End {
        if self.forwarded {
            End::Broken(kind)
        } else {
            End::Failed(kind)
        }
    }

    /// Something moved: the time that may pass until the next move begins anew.
    fn touch(&self) {
        let limits = &self.worker.limits;
        let has_length = matches!(self.request.body, Body::Length(_));
        let limit = match (&self.download, &self.upload) {
            _ if self.client_is_slow() => limits.send,
            (Download::Head, Upload::Sent) => limits.answer,
            (Download::Head, Upload::Sending | Upload::Refused) => limits.send,
            (Download::Head, _) if has_length => limits.send,
            _ => limits.stream_idle,
        };
        self.client.alarm.set(limit);
    }

    // The way to the instance.

    /// Ready only when the exchange is over.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, Stop>> {
        loop {
            match &mut self.upload {
                Upload::Sending => ready!(self.poll_send(cx)),
                Upload::Reading if self.request.is_held() => return Poll::Pending,
                Upload::Reading => ready!(self.poll_read_client(cx))?,
                Upload::Splicing(_) => ready!(self.poll_splice_up(cx))?,
                Upload::Sent | Upload::Refused => return self.poll_client_gone(cx),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.request.sent < self.request.bytes.len() {
            let rest = &self.request.bytes[self.request.sent..];
            match ready!(Pin::new(&mut self.upstream).poll_write(cx, rest)) {
                Ok(count) if count > 0 => self.sent(count),
                // It may have answered and closed: what it said counts.
                _ => {
                    self.upload = Upload::Refused;
                    return Poll::Ready(());
                }
            }
        }
        if ready!(Pin::new(&mut self.upstream).poll_flush(cx)).is_err() {
            self.upload = Upload::Refused;
            return Poll::Ready(());
        }
        self.upload = if self.request.body.is_done() {
            Upload::Sent
        } else {
            self.read_or_splice()
        };
        self.touch();
        Poll::Ready(())
    }

    fn sent(&mut self, count: usize) {
        self.request.sent += count;
        self.in_flight.sent(count as u64);
        self.touch();
    }

    fn read_or_splice(&mut self) -> Upload {
        match self.request.body {
            Body::Length(left) if left >= MIN_LENGTH && !self.request.is_kept_with(left) => {
                match self.splice(left) {
                    Some(splice) => {
                        self.request.forget_sent();
                        Upload::Splicing(splice)
                    }
                    None => Upload::Reading,
                }
            }
            _ => Upload::Reading,
        }
    }

    /// The kernel moves bytes only from socket to socket.
    fn splice(&self, length: u64) -> Option<Splice> {
        self.client.stream.plain()?;
        self.upstream.plain()?;
        Splice::begin(&self.worker.pipes, length)
    }

    fn poll_read_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let worker = self.worker;
        let count = match ready!(worker.scratch.poll_read(&mut self.client.stream, cx)) {
            Ok(count) if count > 0 => count,
            _ => return Poll::Ready(Err(Stop(End::ClientGone))),
        };
        let bytes = worker.scratch.bytes(count);
        let taken = match self.request.body.scan(&bytes, None) {
            Ok(taken) => taken,
            Err(error) => return Poll::Ready(Err(Stop(self.bad_body(error.0)))),
        };
        self.client.stash.extend_from_slice(&bytes[taken..]);
        if self.request.keep(&bytes[..taken]) {
            self.upload = Upload::Sending;
            return Poll::Ready(Ok(()));
        }
        // Too long to be kept: straight on, and only what the instance does not take now waits.
        let written = match Pin::new(&mut self.upstream).poll_write(cx, &bytes[..taken]) {
            Poll::Ready(Ok(written)) if written > 0 => written,
            Poll::Pending => 0,
            Poll::Ready(_) => {
                self.upload = Upload::Refused;
                return Poll::Ready(Ok(()));
            }
        };
        self.in_flight.sent(written as u64);
        self.request.bytes.extend_from_slice(&bytes[written..taken]);
        self.upload = Upload::Sending;
        Poll::Ready(Ok(()))
    }

    fn bad_body(&self, what: &'static str) -> End {
        if self.forwarded {
            End::ClientGone
        } else {
            End::BadBody(what)
        }
    }

    fn poll_splice_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let Upload::Splicing(splice) = &mut self.upload else {
            return Poll::Ready(Ok(()));
        };
        let before = splice.left();
        let polled = match (self.client.stream.plain(), self.upstream.plain()) {
            (Some(from), Some(to)) => splice.poll(from, to, cx),
            _ => Poll::Ready(Err(Side::Sink)),
        };
        let moved = before - splice.left();
        if moved > 0 {
            self.in_flight.sent(moved);
            self.request.body.skip(moved);
            self.touch();
        }
        match ready!(polled) {
            Ok(()) => self.upload = Upload::Sent,
            Err(Side::Sink) => self.upload = Upload::Refused,
            Err(Side::Source) => return Poll::Ready(Err(Stop(End::ClientGone))),
        }
        self.touch();
        Poll::Ready(Ok(()))
    }

    /// While the answer is awaited, the client is watched: when it goes, the instance is told by
    /// the end of its connection. What it sends ahead is kept. One that announced its last
    /// request may close its side and still be there.
    fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, Stop>> {
        if !self.request.keep_alive || matches!(self.upload, Upload::Refused) {
            return Poll::Pending;
        }
        while self.client.stash.len() < MAX_AHEAD {
            match ready!(self.worker.scratch.poll_read(&mut self.client.stream, cx)) {
                Ok(count) if count > 0 => {
                    let bytes = self.worker.scratch.bytes(count);
                    self.client.stash.extend_from_slice(&bytes);
                }
                _ => return Poll::Ready(Err(Stop(End::ClientGone))),
            }
        }
        Poll::Pending
    }

    // The way to the client.

    fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, Stop>> {
        loop {
            ready!(self.poll_flush(cx))?;
            match &mut self.download {
                Download::Complete(end) => return Poll::Ready(Err(Stop(*end))),
                Download::Splicing(_) => ready!(self.poll_splice_down(cx))?,
                Download::Head | Download::Body(_) => ready!(self.poll_read_upstream(cx))?,
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        while self.written < self.answer.len() {
            let rest = &self.answer[self.written..];
            match ready!(Pin::new(&mut self.client.stream).poll_write(cx, rest)) {
                Ok(count) if count > 0 => self.written += count,
                _ => return Poll::Ready(Err(Stop(End::ClientGone))),
            }
            self.forwarded = true;
            self.touch();
        }
        match Pin::new(&mut self.client.stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => self.flushing = false,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop(End::ClientGone))),
            Poll::Pending => {
                if !std::mem::replace(&mut self.flushing, true) {
                    self.touch();
                }
                return Poll::Pending;
            }
        }
        self.answer.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_read_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let worker = self.worker;
        let most = match self.download {
            Download::Head if self.upstream.plain().is_some() => scratch::WITH_HEAD,
            _ => scratch::SIZE,
        };
        let scratch = &worker.scratch;
        let read = ready!(scratch.poll_read_at_most(most, &mut self.upstream, cx));
        let count = match read {
            Ok(count) if count > 0 => count,
            ended => return Poll::Ready(self.upstream_ended(ended.is_ok())),
        };
        // More may be there.
        self.unsettled = count == most || self.upstream.reads_ahead();
        let bytes = worker.scratch.bytes(count);
        let outcome = match self.download {
            Download::Body(_) => self.forward_body(&bytes, cx),
            _ if self.part.is_empty() => self.read_heads(&bytes, cx),
            _ => {
                let mut part = std::mem::take(&mut self.part);
                part.extend_from_slice(&bytes);
                self.read_heads(&part, cx)
            }
        };
        self.touch();
        Poll::Ready(outcome)
    }

    /// The instance closed its connection (`cleanly`), or it broke.
    fn upstream_ended(&mut self, cleanly: bool) -> Result<(), Stop> {
        match self.download {
            Download::Body(Body::UntilClose) if cleanly => {
                self.download = Download::Complete(End::Complete);
                Ok(())
            }
            Download::Body(_) => Err(Stop(self.failure(ErrorKind::Truncated))),
            _ if self.part.is_empty() => Err(Stop(self.failure(ErrorKind::Closed))),
            _ => Err(Stop(self.failure(ErrorKind::Protocol))),
        }
    }

    /// Reads the heads that are there: any number of interim ones, then the final one.
    fn read_heads(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Stop> {
        let mut rest = bytes;
        loop {
            let mut room = fields();
            let head = match parse_response(rest, &mut room, self.request.to_head) {
                Ok(Some(head)) => head,
                Ok(None) if rest.len() <= MAX_HEAD => {
                    self.part = rest.to_vec();
                    return Ok(());
                }
                _ => return Err(Stop(self.failure(ErrorKind::Protocol))),
            };
            let behind = &rest[head.len..];
            if head.is_interim() && head.reached && self.request.afar {
                self.request.reached = true;
                // More of the body may be read now.
                cx.waker().wake_by_ref();
            } else if head.is_interim() {
                self.forward_interim(&head, rest)?;
            } else if head.status == 101 {
                return self.upgrade(&head, rest);
            } else {
                return self.forward_head(&head, rest, cx);
            }
            rest = behind;
        }
    }

    /// Clients of HTTP/1.0 know no interim answers.
    fn forward_interim(&mut self, head: &ResponseHead<'_>, bytes: &[u8]) -> Result<(), Stop> {
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return Err(Stop(self.failure(ErrorKind::Protocol)));
        }
        if self.request.http11 {
            head.write(bytes, self.onward(), &mut self.answer);
        }
        Ok(())
    }

    fn onward(&self) -> Onward<'static> {
        Onward {
            http11: self.request.http11,
            close: self.close,
            cut: b"",
            changes: None,
        }
    }

    fn upgrade(&mut self, head: &ResponseHead<'_>, bytes: &[u8]) -> Result<(), Stop> {
        // With half of the request on its way the rest would be lost.
        if !self.request.wants_upgrade || head.upgrade.is_none() || !self.is_sent() {
            return Err(Stop(self.failure(ErrorKind::Protocol)));
        }
        self.in_flight.answered(head.status, Moment::now());
        head.write(bytes, self.onward(), &mut self.answer);
        self.part = bytes[head.len..].to_vec();
        self.download = Download::Complete(End::Upgraded);
        Ok(())
    }

    fn forward_head(
        &mut self,
        head: &ResponseHead<'_>,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Stop> {
        let behind = &bytes[head.len..];
        if let Some(verdict) = head
            .verdict
            .filter(|_| self.request.afar && !self.forwarded)
        {
            self.throw_away(head, behind);
            return Err(Stop(End::There(verdict)));
        }
        if self.is_unwanted(head.status) {
            self.in_flight.answered(head.status, Moment::now());
            self.throw_away(head, behind);
            return Err(Stop(End::Unwanted));
        }
        self.until_close = head.framing == Framing::UntilClose;
        self.unchunk = head.framing == Framing::Chunked && !self.request.http11;
        self.close = !self.request.keep_alive
            || self.until_close
            || self.unchunk
            || !self.is_sent()
            || self.worker.is_draining();
        let mut body = Body::new(head.framing, false);
        let mut payload = Vec::new();
        let Ok(taken) = body.scan(behind, self.unchunk.then_some(&mut payload)) else {
            return Err(Stop(self.failure(ErrorKind::Protocol)));
        };
        self.in_flight.answered(head.status, Moment::now());
        self.in_flight.received(taken as u64);
        let rule = self.request.rule.as_ref();
        let onward = Onward {
            cut: &self.request.cut,
            changes: rule.and_then(|rule| rule.answer_changes()),
            ..self.onward()
        };
        head.write(bytes, onward, &mut self.answer);
        if head.keep_alive && taken == behind.len() {
            self.keep = Some(self.keep_for(head.keep_alive_seconds));
        }
        let forwarded = if self.unchunk {
            &payload[..]
        } else {
            &behind[..taken]
        };
        self.write_with_head(forwarded, cx)?;
        self.download = self.go_on(body);
        Ok(())
    }

    /// By a rule another instance is asked after this status, and one can be.
    fn is_unwanted(&self, status: u16) -> bool {
        let tries = &self.tries;
        tries.cover_status(status)
            && !self.forwarded
            && self.request.may_be_repeated()
            && tries.take_another(self.worker, self.request.priority)
    }

    /// An answer that is not for the client. The connection stays where all of it is there.
    fn throw_away(&mut self, head: &ResponseHead<'_>, behind: &[u8]) {
        let mut body = Body::new(head.framing, false);
        let is_whole = body.scan(behind, None) == Ok(behind.len()) && body.is_done();
        if is_whole && head.keep_alive && self.is_sent() {
            self.keep = Some(self.keep_for(head.keep_alive_seconds));
        }
    }

    /// How long the instance keeps an idle connection, less a second for the way.
    fn keep_for(&self, seconds: Option<u64>) -> std::time::Duration {
        let limit = self.worker.limits.upstream_idle;
        seconds.map_or(limit, |told| {
            limit.min(std::time::Duration::from_secs(told.saturating_sub(1)))
        })
    }

    fn write_with_head(&mut self, body: &[u8], cx: &mut Context<'_>) -> Result<(), Stop> {
        if body.len() <= COPIED_BODY {
            self.answer.extend_from_slice(body);
            return Ok(());
        }
        let parts = [
            IoSlice::new(&self.answer[self.written..]),
            IoSlice::new(body),
        ];
        let head = parts[0].len();
        let stream = Pin::new(&mut self.client.stream);
        let written = match stream.poll_write_vectored(cx, &parts) {
            Poll::Ready(Ok(count)) if count > 0 => count,
            Poll::Pending => 0,
            Poll::Ready(_) => return Err(Stop(End::ClientGone)),
        };
        self.forwarded |= written > 0;
        self.written += written.min(head);
        self.answer
            .extend_from_slice(&body[written.saturating_sub(head)..]);
        Ok(())
    }

    fn go_on(&mut self, body: Body) -> Download {
        match body {
            Body::Done => Download::Complete(End::Complete),
            Body::Length(left) if left >= MIN_LENGTH => match self.splice(left) {
                Some(splice) => Download::Splicing(splice),
                None => Download::Body(Body::Length(left)),
            },
            body => Download::Body(body),
        }
    }

    fn forward_body(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Stop> {
        let Download::Body(body) = &mut self.download else {
            return Ok(());
        };
        let payload = self.unchunk.then_some(&mut self.answer);
        let Ok(taken) = body.scan(bytes, payload) else {
            return Err(Stop(self.failure(ErrorKind::Protocol)));
        };
        if body.is_done() {
            self.download = Download::Complete(End::Complete);
        }
        if taken < bytes.len() {
            self.keep = None;
        }
        self.in_flight.received(taken as u64);
        if !self.unchunk && taken > 0 {
            let stream = Pin::new(&mut self.client.stream);
            let written = match stream.poll_write(cx, &bytes[..taken]) {
                Poll::Ready(Ok(count)) if count > 0 => count,
                Poll::Pending => 0,
                Poll::Ready(_) => return Err(Stop(End::ClientGone)),
            };
            self.forwarded |= written > 0;
            self.answer.extend_from_slice(&bytes[written..taken]);
        }
        Ok(())
    }

    fn poll_splice_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let Download::Splicing(splice) = &mut self.download else {
            return Poll::Ready(Ok(()));
        };
        self.unsettled = true;
        let before = splice.left();
        let polled = match (self.upstream.plain(), self.client.stream.plain()) {
            (Some(from), Some(to)) => splice.poll(from, to, cx),
            _ => Poll::Ready(Err(Side::Source)),
        };
        let moved = before - splice.left();
        if moved > 0 {
            self.in_flight.received(moved);
            self.touch();
        }
        Poll::Ready(match ready!(polled) {
            Ok(()) => {
                self.download = Download::Complete(End::Complete);
                Ok(())
            }
            Err(Side::Source) => Err(Stop(End::Broken(ErrorKind::Truncated))),
            Err(Side::Sink) => Err(Stop(End::ClientGone)),
        })
    }

    /// Gives back what it borrowed, and the connection to the instance.
    pub(super) fn into_upstream(mut self) -> Stream {
        let answer = std::mem::take(&mut self.answer);
        self.worker.scratch.give_buffer(answer);
        self.upstream
    }
}

/// Ends the exchange from within a step of it.
#[derive(Debug)]
struct Stop(End);
