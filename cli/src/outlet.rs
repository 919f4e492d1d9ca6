//! The ways out of the process, each with a thread of its own, so that a reader that is slow, or has stopped reading, slows no node. Lines to
//! stderr wait in a bounded queue; above the bound they are left out, counted, and their number is told when the reader goes on. What is
//! printed to stdout is waited for by the command that prints it. `output.rs` decides what is written.

use meshwork::limits::{STDERR_FLUSH_WITHIN, STDERR_WAITING_LEN_MAX};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// The lines that wait for their way out, and the number of those that found no room.
struct Lines {
    waiting: Vec<u8>,
    waiting_max: usize,
    count: u64,
    left_out: u64,
    /// Whether lines that were taken are being written.
    is_writing: bool,
}

/// Lines that were taken out to be written.
struct Taken {
    bytes: Vec<u8>,
    count: u64,
    /// How many lines were left out before; the last of the lines tells of them.
    left_out: u64,
}

impl Lines {
    fn new(waiting_max: usize) -> Self {
        Self { waiting: Vec::new(), waiting_max, count: 0, left_out: 0, is_writing: false }
    }

    /// Adds a line, with its end; `false` if there is no room.
    fn push(&mut self, line: &[u8]) -> bool {
        let fits = self.waiting.len() + line.len() <= self.waiting_max;
        if fits {
            self.waiting.extend_from_slice(line);
            self.count += 1;
        } else {
            self.left_out += 1;
        }
        fits
    }

    /// Takes all lines, in order, and with them the news of those that were left out.
    fn take(&mut self) -> Option<Taken> {
        if self.waiting.is_empty() {
            return None;
        }
        self.is_writing = true;
        let (mut bytes, count) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.count));
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            let line = format!("meshwork: {left_out} lines were left out here, since nobody took them\n");
            bytes.extend_from_slice(line.as_bytes());
        }
        Some(Taken { bytes, count, left_out })
    }

    /// Notes that lines were written, or that writing failed: then they count as left out.
    fn written(&mut self, taken: &Taken, done: bool) {
        self.is_writing = false;
        if !done {
            self.left_out += taken.count + taken.left_out;
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.is_writing
    }
}

/// Lines on their way to a file that may block.
struct Outlet {
    lines: Mutex<Lines>,
    /// There are lines to be written.
    come: Condvar,
    /// Lines were written.
    gone: Condvar,
}

impl Outlet {
    /// Starts the thread that writes.
    fn start(waiting_max: usize, mut to: impl Write + Send + 'static) -> Arc<Self> {
        let lines = Mutex::new(Lines::new(waiting_max));
        let outlet = Arc::new(Self { lines, come: Condvar::new(), gone: Condvar::new() });
        let ours = Arc::clone(&outlet);
        // Without a thread, lines are counted and never written: a process that cannot have one will end soon.
        let _ = thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            loop {
                let mut lines = ours.lock();
                let taken = loop {
                    match lines.take() {
                        Some(taken) => break taken,
                        None => lines = ours.come.wait(lines).unwrap_or_else(PoisonError::into_inner),
                    }
                };
                drop(lines);
                let done = write_all(&mut to, &taken.bytes).is_ok();
                ours.lock().written(&taken, done);
                ours.gone.notify_all();
            }
        });
        outlet
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        if self.lock().push(line) {
            self.come.notify_one();
        }
    }

    /// Waits until all lines are written; `false` if that takes longer.
    fn flush(&self, within: Duration) -> bool {
        let lines = self.lock();
        let waited = self.gone.wait_timeout_while(lines, within, |lines| !lines.is_empty());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// How long the thread waits before it tries again to write to a pipe that another process has set not to block.
const FULL_PIPE_AGAIN_AFTER: Duration = Duration::from_millis(10);

fn write_all(to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PIPE_AGAIN_AFTER),
            Err(error) => return Err(error),
        }
    }
    to.flush()
}

fn stderr() -> &'static Outlet {
    static STDERR: OnceLock<Arc<Outlet>> = OnceLock::new();
    STDERR.get_or_init(|| Outlet::start(STDERR_WAITING_LEN_MAX, io::stderr()))
}

/// Writes a line, which has its end, to stderr, and does not wait.
pub(super) fn say_line(line: &[u8]) {
    stderr().push(line);
}

/// Waits until the lines to stderr are written, for [`STDERR_FLUSH_WITHIN`] at most: for the end of the process.
pub(super) fn flush_stderr() {
    stderr().flush(STDERR_FLUSH_WITHIN);
}

/// Where the log goes: each write is one line.
pub(super) struct LogLines;

impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        say_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The stdout of a command that has a node to run meanwhile.
#[derive(Clone)]
pub(super) struct Printer(mpsc::Sender<Print>);

struct Print {
    text: String,
    printed: oneshot::Sender<io::Result<()>>,
}

impl Printer {
    /// Starts the thread that prints.
    pub(super) fn start() -> io::Result<Self> {
        // Without a bound of its own: each command waits for what it prints, and a master prints a line for each of its listeners.
        let (printer, prints) = mpsc::channel::<Print>();
        thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            for Print { text, printed } in prints {
                // The command may have ended.
                let _ = printed.send(write_all(&mut io::stdout().lock(), text.as_bytes()));
            }
        })?;
        Ok(Self(printer))
    }

    /// Prints whole lines; the future ends when they are written.
    pub(super) fn print(&self, text: String) -> impl Future<Output = io::Result<()>> + use<> {
        let (printed, is_printed) = oneshot::channel();
        let sent = self.0.send(Print { text, printed });
        async move {
            let gone = |_| io::Error::other("the thread that prints has ended");
            sent.map_err(|_| io::Error::other("the thread that prints has ended"))?;
            is_printed.await.map_err(gone)?
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_above_the_bound_are_left_out_and_their_number_is_told_when_there_is_room() {
        let mut lines = Lines::new(8);
        let pushed: Vec<bool> =
            ["one\n", "two\n", "three\n", "\n"].map(|line| lines.push(line.as_bytes())).into();
        assert_eq!(pushed, [true, true, false, false]);
        let taken = lines.take().unwrap();
        let text = "one\ntwo\nmeshwork: 2 lines were left out here, since nobody took them\n";
        assert_eq!(String::from_utf8_lossy(&taken.bytes), text);
        assert!(lines.take().is_none() && !lines.is_empty(), "they are being written");
        lines.written(&taken, true);
        assert!(lines.is_empty());
    }

    #[test]
    fn lines_that_cannot_be_written_count_as_left_out() {
        let mut lines = Lines::new(100);
        for _ in 0..3 {
            lines.push(b"one\n");
            let taken = lines.take().unwrap();
            lines.written(&taken, false);
        }
        lines.push(b"two\n");
        let text = "two\nmeshwork: 3 lines were left out here, since nobody took them\n";
        assert_eq!(String::from_utf8_lossy(&lines.take().unwrap().bytes), text);
    }

    /// A reader that takes nothing until it is let go on.
    struct Stuck(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_nobody_up_and_no_more_than_the_bound() {
        let ((go_on, stuck), (written, read)) = (mpsc::channel(), mpsc::channel());
        let outlet = Outlet::start(64, Stuck(stuck, written));
        for _ in 0..10_000 {
            outlet.push(b"0123456\n");
        }
        assert!(!outlet.flush(Duration::from_millis(1)), "it waits for no longer than it was told to");
        assert!(outlet.lock().waiting.len() <= 64);
        let mut text = Vec::new();
        while !outlet.flush(Duration::from_millis(1)) {
            go_on.send(()).unwrap();
            text.extend(read.recv().unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        let told = text.lines().filter_map(|line| line.strip_prefix("meshwork: "));
        let told: usize = told.filter_map(|line| line.split(' ').next()?.parse::<usize>().ok()).sum();
        assert_eq!(told + text.lines().filter(|line| *line == "0123456").count(), 10_000);
    }
}
