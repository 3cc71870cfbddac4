//! Bytes on their way to the terminal. One that takes none (its connection hangs) is not waited for: it would hold up the end of
//! the command too.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

/// What is written goes to a file that never blocks, now or later.
pub struct Wire<W>(Rc<RefCell<Sent<W>>>);

struct Sent<W> {
    to: W,
    waiting: Vec<u8>,
    broken: Option<io::Error>,
}

impl<W> Clone for Wire<W> {
    fn clone(&self) -> Self {
        Wire(Rc::clone(&self.0))
    }
}

impl<W: Write> Wire<W> {
    /// To a file that says `WouldBlock` rather than wait.
    pub fn new(to: W) -> Wire<W> {
        Wire(Rc::new(RefCell::new(Sent {
            to,
            waiting: Vec::new(),
            broken: None,
        })))
    }

    /// Sends as much as is taken; says whether that was all.
    pub fn send(&self) -> io::Result<bool> {
        let mut sent = self.0.borrow_mut();
        sent.push();
        match sent.broken.take() {
            Some(e) => Err(e),
            None => Ok(sent.waiting.is_empty()),
        }
    }
}

impl<W: Write> Sent<W> {
    fn push(&mut self) {
        while !self.waiting.is_empty() && self.broken.is_none() {
            match self.to.write(&self.waiting) {
                Ok(0) => self.broken = Some(io::ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => self.broken = Some(e),
            }
        }
    }
}

/// Never fails: whoever only cleans up does not want to know. [`Wire::send`] tells.
impl<W: Write> Write for Wire<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().waiting.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().push();
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;

    /// Takes so many bytes, then says what it is told to.
    struct Taker {
        room: usize,
        then: io::ErrorKind,
        got: Rc<RefCell<Vec<u8>>>,
    }

    impl Write for Taker {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            self.room -= n;
            self.got.borrow_mut().extend_from_slice(&bytes[..n]);
            if n == 0 {
                return Err(self.then.into());
            }
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn wire(room: usize, then: io::ErrorKind) -> (Wire<Taker>, Rc<RefCell<Vec<u8>>>) {
        let got = Rc::default();
        let to = Taker {
            room,
            then,
            got: Rc::clone(&got),
        };
        (Wire::new(to), got)
    }

    #[test]
    fn what_is_not_taken_now_is_sent_later_in_order() {
        let (mut wire, got) = wire(3, io::ErrorKind::WouldBlock);
        wire.write_all(b"hello ").unwrap();
        wire.flush().unwrap();
        assert!(!wire.send().unwrap());
        wire.write_all(b"world").unwrap();
        wire.0.borrow_mut().to.room = 100;
        assert!(wire.send().unwrap());
        assert_eq!(*got.borrow(), b"hello world");
    }

    #[test]
    fn a_terminal_that_is_gone_is_told_once_and_breaks_nothing() {
        let (mut wire, _) = wire(2, io::ErrorKind::BrokenPipe);
        wire.write_all(b"hello").unwrap();
        wire.flush().unwrap();
        assert_eq!(wire.send().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
