//! A command of the shell that is contained: it has the arguments of its request and no secret of the mesh, and it ends with its request. On Unix
//! a keeper stands between: see `keeper.rs`. Elsewhere the shell alone is killed.

use meshwork::{ActionError, limits::FRAME_LEN_MAX};
#[cfg(unix)]
use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
#[cfg(unix)]
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::sync::OwnedSemaphorePermit;

/// How much of the stderr of a command is kept for the error, in bytes: the end of it, where the reason stands.
const STDERR_LEN_MAX: usize = 2 * 1024;

/// How a command ended, and what it printed.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) printed: Vec<u8>,
    /// The end of its stderr.
    pub(super) said: Vec<u8>,
}

pub(super) fn failed(why: impl Into<String>) -> ActionError {
    ActionError::new("COMMAND_FAILED", why.into())
}

/// The variables that a command finds in its environment, of those whose names begin with `MESHWORK_`: the others are secrets, or may be some
/// day.
const VARIABLES_KEPT: [&str; 1] = ["MESHWORK_MASTER"];

fn without_secrets(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let is_ours = name.as_encoded_bytes().starts_with(b"MESHWORK_");
        if is_ours && !VARIABLES_KEPT.iter().any(|kept| name == *kept) {
            command.env_remove(name);
        }
    }
}

/// Prepares this process for commands. Keeps other programs of this user from reading the environment and the memory of this process, where
/// its token is; those of root may. And makes this process the parent of what loses its keeper.
pub(super) fn prepare() {
    #[cfg(unix)]
    crate::keeper::adopt_orphans();
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // Where it cannot be, it was no better before.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// A command that runs. When this is dropped before the command has ended, all that the command started is killed; where there is no keeper, its
/// shell. The permit of the command is given back when nothing of the command runs any more.
struct Running {
    /// Hands the arguments over, and waits for the end of the command itself.
    ended: Pin<Box<dyn Future<Output = Result<ExitStatus, ActionError>>>>,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

/// Starts a command that reads these bytes from its stdin, with these variables in its environment.
#[cfg(unix)]
fn start(
    command: &str,
    input: Vec<u8>,
    variables: &[(String, String)],
    permit: OwnedSemaphorePermit,
) -> Result<Running, ActionError> {
    use crate::keeper::{ENDED, KEEPER, NOT_STARTED, SAID_LEN, end_orphans, remove_group_of};
    use std::os::fd::OwnedFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let mut socket = tokio::net::UnixStream::from_std(near)?;
    let mut keeper = Command::new(this_binary()?);
    keeper.arg0("meshwork").arg(KEEPER).arg(command);
    keeper.stdin(OwnedFd::from(far)).stdout(Stdio::piped()).stderr(Stdio::piped());
    without_secrets(&mut keeper);
    keeper.envs(variables.iter().map(|(name, value)| (name, value)));
    let mut child = keeper.spawn()?;
    let id = child.id();
    KEEPERS.lock().unwrap_or_else(PoisonError::into_inner).extend(id);
    // It holds the keeper's end of the socket.
    drop(keeper);
    let pipes = (child.stdout.take(), child.stderr.take());
    actix::spawn(async move {
        let has_done = child.wait().await.is_ok_and(|status| status.success());
        id.map(|id| KEEPERS.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        // A command of the same user can kill its keeper.
        while !has_done && end_orphans(is_keeper) {
            tokio::time::sleep(ORPHANS_END_WITHIN).await;
        }
        if let (false, Some(id)) = (has_done, id) {
            remove_group_of(id);
        }
        drop(permit);
    });
    let (Some(stdout), Some(stderr)) = pipes else {
        return Err(failed("the command has no pipes"));
    };
    let ended = Box::pin(async move {
        let (mut from_keeper, mut to_keeper) = socket.split();
        let write = async {
            // A keeper whose command did not start reads nothing.
            let _ = to_keeper.write_all(&(input.len() as u64).to_le_bytes()).await;
            let _ = to_keeper.write_all(&input).await;
        };
        let mut said = [0; SAID_LEN];
        let read = while_writing(write, from_keeper.read_exact(&mut said)).await;
        read.map_err(|_| failed("the process that keeps the command was killed"))?;
        let [kind, number @ ..] = said;
        match (kind, i32::from_le_bytes(number)) {
            (ENDED, status) => Ok(ExitStatus::from_raw(status)),
            (NOT_STARTED, error) => Err(failed(std::io::Error::from_raw_os_error(error).to_string())),
            _ => Err(failed("the process that keeps the command says what nobody understands")),
        }
    });
    Ok(Running { ended, stdout, stderr })
}

/// Waits for the end of a command, and writes meanwhile what it reads; it may end without having read all.
async fn while_writing<T>(write: impl Future<Output = ()>, ended: impl Future<Output = T>) -> T {
    let mut ended = pin!(ended);
    tokio::select! {
        ended = &mut ended => ended,
        () = write => ended.await,
    }
}

/// The keepers that run. Bounded by the permits.
#[cfg(unix)]
static KEEPERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

#[cfg(unix)]
fn is_keeper(id: u32) -> bool {
    KEEPERS.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
}

/// How long processes that were killed have to end before it is looked for more of them.
#[cfg(unix)]
const ORPHANS_END_WITHIN: std::time::Duration = std::time::Duration::from_millis(5);

/// The program that this process runs, even if its file has been replaced meanwhile.
#[cfg(unix)]
fn this_binary() -> std::io::Result<std::path::PathBuf> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Ok("/proc/self/exe".into());
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    std::env::current_exe()
}

/// Runs a command that reads these bytes from its stdin, to its end. A process that the command leaves behind holds the pipes open: the command
/// is done when it ends itself.
pub(super) async fn run(
    command: &str,
    input: Vec<u8>,
    variables: &[(String, String)],
    permit: OwnedSemaphorePermit,
) -> Result<Ended, ActionError> {
    let Running { mut ended, mut stdout, mut stderr } = start(command, input, variables, permit)?;
    let (mut printed, mut said) = (Printed::default(), Said::default());
    let status = {
        let talk = async { tokio::join!(printed.read(&mut stdout), said.read(&mut stderr)).0 };
        tokio::select! {
            status = &mut ended => Some(status?),
            fits = talk => {
                fits?;
                None
            }
        }
    };
    let status = match status {
        Some(status) => {
            printed.read_rest(&mut stdout).await?;
            said.read_rest(&mut stderr).await;
            status
        }
        None => ended.await?,
    };
    Ok(Ended { status, printed: printed.0, said: said.0 })
}

/// The error of a command that did not succeed, with the end of what it said.
pub(super) fn check_status(status: ExitStatus, said: &[u8]) -> Result<(), ActionError> {
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(said).trim().to_owned();
    Err(failed(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") }))
}

/// Starts a command that reads these bytes from its stdin, with these variables in its environment.
#[cfg(not(unix))]
fn start(
    command: &str,
    input: Vec<u8>,
    variables: &[(String, String)],
    permit: OwnedSemaphorePermit,
) -> Result<Running, ActionError> {
    use std::process::Stdio;

    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell.kill_on_drop(true);
    without_secrets(&mut shell);
    shell.envs(variables.iter().map(|(name, value)| (name, value)));
    let mut child = shell.spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(failed("the command has no pipes"));
    };
    let ended = Box::pin(async move {
        let write = async move {
            // A command may close the pipe without reading its arguments.
            let _ = stdin.write_all(&input).await;
            drop(stdin);
        };
        let status = while_writing(write, child.wait()).await?;
        drop(permit);
        Ok(status)
    });
    Ok(Running { ended, stdout, stderr })
}

/// The lines of a command that runs, read as they are asked for: in between, the command waits in its writes when the pipe is full.
pub(super) struct Lines {
    /// None when the command has ended, and all that it printed was read.
    running: Option<Running>,
    printed: Unread,
    said: Said,
}

impl Lines {
    /// Starts a command that reads these bytes from its stdin.
    pub(super) fn start(
        command: &str,
        input: Vec<u8>,
        variables: &[(String, String)],
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, ActionError> {
        let running = Some(start(command, input, variables, permit)?);
        Ok(Self { running, printed: Unread::default(), said: Said::default() })
    }

    /// The next line, without its end; none when the command has ended and succeeded. What it leaves behind is waited for as little as by [`run`].
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, ActionError> {
        let Self { running, printed, said } = self;
        let (mut has_more, mut says_more) = (true, true);
        loop {
            if let Some(line) = printed.take_line()? {
                return Ok(Some(line));
            }
            let Some(Running { ended, stdout, stderr }) = running else {
                return printed.take_rest();
            };
            tokio::select! {
                status = ended => {
                    printed.read_rest(stdout).await?;
                    said.read_rest(stderr).await;
                    *running = None;
                    // The lines that came before stand before the error.
                    printed.failed = check_status(status?, &said.0).err();
                }
                read = printed.read(stdout), if has_more => has_more = read? > 0,
                () = said.read(stderr), if says_more => says_more = false,
            }
        }
    }
}

/// What a command has printed, cut into lines.
#[derive(Default)]
struct Unread {
    /// The lines that were taken stand before `start`; what was looked at, and has no end of a line, up to `seen`.
    bytes: Vec<u8>,
    start: usize,
    seen: usize,
    /// How the command failed, to be told behind its last line.
    failed: Option<ActionError>,
}

impl Unread {
    /// Reads a piece; zero at the end. What has been read is kept when this is dropped before.
    async fn read(&mut self, pipe: &mut (impl AsyncRead + Unpin)) -> Result<usize, ActionError> {
        self.bytes.reserve(PIECE_LEN);
        Ok(pipe.read_buf(&mut self.bytes).await?)
    }

    /// Reads what the command has written before it ended.
    async fn read_rest(&mut self, pipe: &mut ChildStdout) -> Result<(), ActionError> {
        #[cfg(unix)]
        return read_now(pipe, |chunk| {
            self.bytes.extend_from_slice(chunk);
            Ok(())
        });
        #[cfg(not(unix))]
        {
            while self.read(pipe).await? > 0 {}
            Ok(())
        }
    }

    /// Takes the first line that has an end.
    fn take_line(&mut self) -> Result<Option<Vec<u8>>, ActionError> {
        if let Some(at) = self.bytes[self.seen..].iter().position(|byte| *byte == b'\n') {
            let end = self.seen + at;
            let line = self.bytes[self.start..end].to_vec();
            (self.start, self.seen) = (end + 1, end + 1);
            return Ok(Some(line));
        }
        self.bytes.drain(..self.start);
        (self.start, self.seen) = (0, self.bytes.len());
        if self.bytes.capacity() > PIECE_LEN && self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        if self.seen > FRAME_LEN_MAX {
            return Err(failed(format!("the command prints a line of more than {FRAME_LEN_MAX} bytes")));
        }
        Ok(None)
    }

    /// Takes the last line, which has no end, and then how the command failed.
    fn take_rest(&mut self) -> Result<Option<Vec<u8>>, ActionError> {
        self.seen = 0;
        if !self.bytes.is_empty() {
            return Ok(Some(std::mem::take(&mut self.bytes)));
        }
        self.failed.take().map_or(Ok(None), Err)
    }
}

/// How much of the lines of a command is read at once, in bytes, at least.
const PIECE_LEN: usize = 16 * 1024;

/// The whole stdout of a command.
#[derive(Default)]
struct Printed(Vec<u8>);

impl Printed {
    /// Reads to the end. What has been read is kept when this is dropped before.
    async fn read(&mut self, pipe: &mut (impl AsyncRead + Unpin)) -> Result<(), ActionError> {
        while pipe.read_buf(&mut self.0).await? > 0 {
            self.check()?;
        }
        Ok(())
    }

    /// Reads what the command has written before it ended.
    async fn read_rest(&mut self, pipe: &mut ChildStdout) -> Result<(), ActionError> {
        #[cfg(unix)]
        return read_now(pipe, |chunk| {
            self.0.extend_from_slice(chunk);
            self.check()
        });
        #[cfg(not(unix))]
        self.read(pipe).await
    }

    /// The reply must fit into a frame.
    fn check(&self) -> Result<(), ActionError> {
        if self.0.len() > FRAME_LEN_MAX {
            return Err(failed(format!("the command prints more than {FRAME_LEN_MAX} bytes")));
        }
        Ok(())
    }
}

/// The end of the stderr of a command.
#[derive(Default)]
struct Said(Vec<u8>);

impl Said {
    /// Reads all of it, so that the command never waits for a reader.
    async fn read(&mut self, pipe: &mut (impl AsyncRead + Unpin)) {
        let mut chunk = [0; CHUNK_LEN];
        while let Ok(len @ 1..) = pipe.read(&mut chunk).await {
            self.keep(&chunk[..len]);
        }
    }

    /// Reads what the command has written before it ended.
    async fn read_rest(&mut self, pipe: &mut ChildStderr) {
        #[cfg(unix)]
        // What cannot be read is no reason to fail.
        let _ = read_now(pipe, |chunk| {
            self.keep(chunk);
            Ok(())
        });
        #[cfg(not(unix))]
        self.read(pipe).await;
    }

    fn keep(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(chunk);
        let excess = self.0.len().saturating_sub(STDERR_LEN_MAX);
        self.0.drain(..excess);
    }
}

/// How much of a pipe is read at once, in bytes.
const CHUNK_LEN: usize = 1024;

/// How much of a pipe is read after its command has ended, in bytes: as much as a pipe holds at most by default. A process that is left
/// behind may go on writing for ever.
#[cfg(unix)]
const REST_LEN_MAX: usize = 1024 * 1024;

/// Reads what stands in a pipe, and does not wait for more.
#[cfg(unix)]
fn read_now(
    pipe: impl std::os::fd::AsFd,
    mut take: impl FnMut(&[u8]) -> Result<(), ActionError>,
) -> Result<(), ActionError> {
    let (mut chunk, mut len) = ([0; CHUNK_LEN], 0);
    while len < REST_LEN_MAX {
        // The pipe is one that does not block.
        match rustix::io::read(&pipe, &mut chunk) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
            Ok(read) => {
                len += read;
                take(&chunk[..read])?;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(format!("what the command printed cannot be read: {error}"))),
        }
    }
    Ok(())
}
