//! Moves long bodies from socket to socket inside the kernel, where it can: the bytes are never
//! copied into the router.

#[cfg(target_os = "linux")]
pub(crate) use linux::{Pipes, Splice};
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::{Pipes, Splice};

/// Bodies with less than this still to come are copied: a pipe costs more than it saves.
pub(crate) const MIN_LENGTH: u64 = 16 * 1024;

/// Which side broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one that is read; also when it ended too early.
    Source,
    /// The one that is written.
    Sink,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::RefCell;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::rc::Rc;
    use std::task::{Context, Poll, ready};

    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use tokio::io::Interest;
    use tokio::net::TcpStream;

    use super::Side;

    const PIPE_SIZE: usize = 1 << 20;
    /// Empty pipes that are kept for the next body.
    const KEPT: usize = 32;
    /// Fills of the pipe in one go, before other connections have their turn.
    const MAX_FILLS: usize = 8;

    /// Empty pipes of a worker.
    #[derive(Debug, Default)]
    pub(crate) struct Pipes(RefCell<Vec<Pipe>>);

    #[derive(Debug)]
    struct Pipe {
        read: OwnedFd,
        write: OwnedFd,
    }

    impl Pipes {
        fn take(&self) -> Option<Pipe> {
            if let Some(pipe) = self.0.borrow_mut().pop() {
                return Some(pipe);
            }
            let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
            // A smaller pipe, where the system grants no larger one, is slower and no more.
            let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
            Some(Pipe { read, write })
        }

        fn give(&self, pipe: Pipe) {
            let mut pipes = self.0.borrow_mut();
            if pipes.len() < KEPT {
                pipes.push(pipe);
            }
        }
    }

    /// The rest of a body, on its way through a pipe.
    #[derive(Debug)]
    pub(crate) struct Splice {
        pipe: Option<Pipe>,
        pipes: Rc<Pipes>,
        held: usize,
        left: u64,
    }

    impl Splice {
        /// Begins with `length` bytes to move; `None` when there is no pipe to be had.
        pub(crate) fn begin(pipes: &Rc<Pipes>, length: u64) -> Option<Self> {
            Some(Self {
                pipe: Some(pipes.take()?),
                pipes: Rc::clone(pipes),
                held: 0,
                left: length,
            })
        }

        /// Bytes that were not yet written.
        pub(crate) fn left(&self) -> u64 {
            self.left + self.held as u64
        }

        /// Something was read that is not yet written.
        pub(crate) fn waits_for_sink(&self) -> bool {
            self.held > 0
        }

        /// Moves what can be moved.
        pub(crate) fn poll(
            &mut self,
            source: &TcpStream,
            sink: &TcpStream,
            cx: &mut Context<'_>,
        ) -> Poll<Result<(), Side>> {
            let Some(pipe) = &self.pipe else {
                return Poll::Ready(Ok(()));
            };
            let mut fills = 0;
            while self.left() > 0 {
                if self.held > 0 {
                    ready!(sink.poll_write_ready(cx)).map_err(|_| Side::Sink)?;
                    let wrote = sink.try_io(Interest::WRITABLE, || {
                        moved(splice(&pipe.read, None, sink, None, self.held, FLAGS))
                    });
                    self.held -= taken(wrote).map_err(|()| Side::Sink)?;
                    continue;
                }
                fills += 1;
                if fills > MAX_FILLS {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                ready!(source.poll_read_ready(cx)).map_err(|_| Side::Source)?;
                let most = self.left.min(PIPE_SIZE as u64) as usize;
                let read = source.try_io(Interest::READABLE, || {
                    moved(splice(source, None, &pipe.write, None, most, FLAGS))
                });
                self.held = taken(read).map_err(|()| Side::Source)?;
                self.left -= self.held as u64;
            }
            if let Some(pipe) = self.pipe.take() {
                self.pipes.give(pipe);
            }
            Poll::Ready(Ok(()))
        }
    }

    const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

    /// A move of nothing is the end of the source.
    fn moved(result: rustix::io::Result<usize>) -> io::Result<usize> {
        match result? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }

    /// How much was moved: nothing when it must be tried again.
    fn taken(result: io::Result<usize>) -> Result<usize, ()> {
        match result {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(_) => Err(()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::rc::Rc;
    use std::task::{Context, Poll};

    use tokio::net::TcpStream;

    use super::Side;

    /// No pipes: bodies are copied.
    #[derive(Debug, Default)]
    pub(crate) struct Pipes;

    /// Never made.
    #[derive(Debug)]
    pub(crate) enum Splice {}

    impl Splice {
        pub(crate) fn begin(_: &Rc<Pipes>, _: u64) -> Option<Self> {
            None
        }

        pub(crate) fn left(&self) -> u64 {
            match *self {}
        }

        pub(crate) fn waits_for_sink(&self) -> bool {
            match *self {}
        }

        pub(crate) fn poll(
            &mut self,
            _: &TcpStream,
            _: &TcpStream,
            _: &mut Context<'_>,
        ) -> Poll<Result<(), Side>> {
            match *self {}
        }
    }
}
