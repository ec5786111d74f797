use std::cell::{Ref, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, ReadBuf};

use crate::stream::Stream;

/// The most that is read at a time. Smaller ones cost half as much again at bodies of 100 KB.
pub(crate) const SIZE: usize = 64 * 1024;
/// How much is read with the head of an answer. Most answers fit; of a long one the rest is better moved inside
/// the kernel than copied.
pub(crate) const WITH_HEAD: usize = 16 * 1024;
/// Buffers for requests under way that are kept for the next ones, and how large such a one is.
const KEPT: usize = 256;
const KEPT_CAPACITY: usize = 16 * 1024;

/// The one buffer of a worker into which every read goes. What was read is taken out before the
/// worker waits again, so a connection that waits owns no buffer.
#[derive(Debug)]
pub(crate) struct Scratch {
    bytes: RefCell<Box<[u8]>>,
    spare: RefCell<Vec<Vec<u8>>>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: RefCell::new(vec![0; SIZE].into()),
            spare: RefCell::default(),
        }
    }

    /// Reads what there is, and tells how much; 0 at the end. Reading through the runtime's own
    /// poll saves a call of the kernel: after a short read it knows that nothing is left.
    pub(crate) fn poll_read(
        &self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.poll_read_at_most(SIZE, stream, cx)
    }

    /// The same, but no more than `most`.
    pub(crate) fn poll_read_at_most(
        &self,
        most: usize,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut bytes = self.bytes.borrow_mut();
        let mut buffer = ReadBuf::new(&mut bytes[..most]);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// The first `count` bytes of the last read. Never held while the worker waits.
    pub(crate) fn bytes(&self, count: usize) -> Ref<'_, [u8]> {
        Ref::map(self.bytes.borrow(), |bytes| &bytes[..count])
    }

    /// An empty buffer for a request under way.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if (1..=KEPT_CAPACITY).contains(&buffer.capacity()) && spare.len() < KEPT {
            buffer.clear();
            spare.push(buffer);
        }
    }
}
