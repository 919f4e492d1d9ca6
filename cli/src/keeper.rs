//! The keeper of a command: a process between `meshwork respond` and the command of one request, this binary again. It starts the command in a
//! session of its own, hands it the arguments, tells how it ended, and then ends all that the command started; and it does so at once when
//! `meshwork respond` lets go of it, by a cancel or by its own end, however sudden. `contained.rs` is the other end.
//!
//! On Linux it adopts whatever the command leaves behind, and puts the command into a cgroup where it may make one. Elsewhere it knows the process
//! group of the command only.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, setsid, wait};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The first argument of a keeper; the second is its command.
pub(super) const KEEPER: &str = "keep-the-command-of-a-request";

/// What a keeper says, once: its length in bytes, and the kinds, which come before four bytes of a number.
pub(super) const SAID_LEN: usize = 5;
/// The command ended; the number is its status, as the operating system has it.
pub(super) const ENDED: u8 = 0;
/// The command did not start; the number is that of the error.
pub(super) const NOT_STARTED: u8 = 1;

/// Runs as a keeper, if this process was started as one.
pub(super) fn run() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != KEEPER {
        return None;
    }
    Some(match arguments.next().map(keep) {
        Some(Ok(())) => ExitCode::SUCCESS,
        // Nobody reads more about it: `meshwork respond` sees that the keeper has ended and said nothing.
        Some(Err(_)) | None => ExitCode::FAILURE,
    })
}

/// Keeps a command. Its arguments come over stdin, a socket, after their length in eight bytes.
fn keep(command: OsString) -> io::Result<()> {
    close_inherited();
    // The keys of a terminal are for `meshwork respond`, which lets a command finish.
    let _ = setsid();
    adopt_orphans();
    let asked = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let group = Cgroup::enter();
    let mut shell = Command::new("sh");
    // A group of its own: many a script ends its group, and means itself.
    shell.arg("-c").arg(command).stdin(Stdio::piped()).process_group(0);
    let started = shell.spawn();
    if let Some(group) = &group {
        group.leave();
    }
    let mut command = match started {
        Ok(command) => command,
        Err(error) => {
            say(&asked, NOT_STARTED, error.raw_os_error().unwrap_or_default());
            return Ok(());
        }
    };
    // The pipes of stdout and stderr are those of the command: they end when the command closes them.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let kept = Kept { leader: command.id(), group, ending: Mutex::new(()) };
    thread::scope(|scope| {
        scope.spawn(|| {
            until_let_go(&asked);
            kept.end_all();
            std::process::exit(0);
        });
        let stdin = command.stdin.take();
        scope.spawn(|| {
            if let Some(mut stdin) = stdin {
                // A command may close the pipe without reading its arguments.
                let _ = hand_over(&asked, &mut stdin);
            }
        });
        // After an error, the other thread has reaped the command, and is ending all.
        if let Ok(status) = command.wait() {
            say(&asked, ENDED, status.into_raw());
        }
        kept.end_all();
        std::process::exit(0);
    })
}

fn say(mut to: &UnixStream, kind: u8, number: i32) {
    let mut said = [kind; SAID_LEN];
    said[1..].copy_from_slice(&number.to_le_bytes());
    // `meshwork respond` may have gone.
    let _ = to.write_all(&said);
}

fn hand_over(mut from: &UnixStream, to: &mut impl Write) -> io::Result<()> {
    let mut len = [0; 8];
    from.read_exact(&mut len)?;
    io::copy(&mut from.take(u64::from_le_bytes(len)), to)?;
    Ok(())
}

/// Waits until the other end of the socket is closed.
fn until_let_go(asked: &UnixStream) {
    loop {
        // An end is told without being asked for.
        let mut ends = [PollFd::new(asked, PollFlags::empty())];
        match poll(&mut ends, None) {
            Ok(_) if !ends[0].revents().is_empty() => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    // The thread that hands arguments over ends with it.
    let _ = asked.shutdown(Shutdown::Both);
}

/// Closes the descriptors that came along from who started `meshwork respond`: the command gets none of them.
fn close_inherited() {
    let entries = fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    let open: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // One of them was that of the folder, which is closed by now.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Asks to be the parent of the descendants of this process whose parents end, also of those that have left its session.
pub(super) fn adopt_orphans() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // Kernels of before 3.4 have no such thing.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Removes the cgroup of a keeper that was killed, when nothing is in it any more.
pub(super) fn remove_group_of(keeper: u32) {
    if let Some(group) = Cgroup::of(keeper) {
        group.remove();
    }
}

/// Kills the children of this process that are none of these, which lost their own keeper, and those that they leave; `true` if there were any. To
/// be called on the thread that starts keepers, so that no keeper is taken for an orphan.
pub(super) fn end_orphans(is_keeper: impl Fn(u32) -> bool) -> bool {
    let mut there_were = false;
    for child in children() {
        if !is_keeper(child.as_raw_nonzero().get().unsigned_abs()) {
            there_were = true;
            let _ = rustix::process::kill_process(child, Signal::KILL);
            // It takes a moment to end; then it is waited for in the next round.
            let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
        }
    }
    there_were
}

/// A command and all that it started.
struct Kept {
    leader: u32,
    group: Option<Cgroup>,
    /// Held while the processes are being ended.
    ending: Mutex<()>,
}

impl Kept {
    /// Ends all processes of the command, and waits until they have ended.
    fn end_all(&self) {
        let _ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = &self.group {
            group.kill();
        }
        let leader = i32::try_from(self.leader).ok().and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // An error says that the group has ended meanwhile, as it should. Its number is taken as long as one of it runs.
            let _ = kill_process_group(leader, Signal::KILL);
        }
        self.end_children();
        if let Some(group) = &self.group {
            group.remove();
        }
    }

    /// Kills the children of this process; theirs become children of this process by that, and are killed next. Only children are killed: the
    /// number of a child belongs to no other process before this process has waited for it.
    fn end_children(&self) {
        loop {
            let children = children();
            for child in &children {
                let _ = rustix::process::kill_process(*child, Signal::KILL);
            }
            let options = if children.is_empty() { WaitOptions::NOHANG } else { WaitOptions::empty() };
            match wait(options) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                // A child has come in between, or children cannot be listed here: its group was killed.
                Ok(None) if IS_LISTED => thread::sleep(AGAIN_AFTER),
                Ok(None) | Err(_) => break,
            }
        }
    }
}

/// How long the keeper waits before it looks for children again that were not there a moment ago.
const AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Whether the children of a process can be listed.
const IS_LISTED: bool = cfg!(target_os = "linux");

/// The children of this process, also those that it has adopted.
fn children() -> Vec<Pid> {
    listed_children().unwrap_or_else(|_| searched_children())
}

/// The children, as the kernel lists them for each thread of this process.
fn listed_children() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let list = fs::read_to_string(thread?.path().join("children"))?;
        children.extend(list.split_whitespace().filter_map(|number| Pid::from_raw(number.parse().ok()?)));
    }
    Ok(children)
}

/// The children, found among all processes, where the kernel was built without their list.
fn searched_children() -> Vec<Pid> {
    let own = std::process::id().to_string();
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name of the program, in parentheses, may hold anything; state and parent follow.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(&own))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

/// A cgroup for one command, by which the kernel ends all its processes at once, however fast they start new ones.
struct Cgroup {
    outer: std::path::PathBuf,
    own: std::path::PathBuf,
}

impl Cgroup {
    /// The cgroup of the keeper with this number, whether it is there or not. None where there is no cgroup2.
    fn of(keeper: u32) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let at = words.next()?;
            (words.next()? == "cgroup2").then_some(at)
        })?;
        let places = fs::read_to_string("/proc/self/cgroup").ok()?;
        let place = places.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let outer = std::path::Path::new(mount).join(place);
        let own = outer.join(format!("meshwork-{keeper}"));
        Some(Self { outer, own })
    }

    /// Makes a cgroup and enters it, so that the command is started in it. None where this process may not.
    fn enter() -> Option<Self> {
        let group = Self::of(std::process::id())?;
        // It is there when a keeper with this number was killed together with its responder.
        let made = fs::create_dir(&group.own);
        if made.is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
            return None;
        }
        // Kernels of before 5.14 cannot end a cgroup.
        if !group.own.join("cgroup.kill").exists() || fs::write(group.own.join("cgroup.procs"), "0").is_err()
        {
            group.remove();
            return None;
        }
        Some(group)
    }

    /// Goes back to where the keeper was, without the command.
    fn leave(&self) {
        let _ = fs::write(self.outer.join("cgroup.procs"), "0");
    }

    /// Kills all processes in it, unless the keeper is one of them: then they are killed one by one.
    fn kill(&self) {
        let has_left = fs::read_to_string(self.own.join("cgroup.procs"))
            .is_ok_and(|inside| !inside.lines().any(|number| number == std::process::id().to_string()));
        if has_left {
            let _ = fs::write(self.own.join("cgroup.kill"), "1");
        }
    }

    /// An empty one is removed.
    fn remove(&self) {
        let _ = fs::remove_dir(&self.own);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_with_and_without_the_list_of_the_kernel() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
        assert!(listed_children().is_ok_and(|children| children.contains(&pid)));
        assert!(searched_children().contains(&pid));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children().contains(&pid) && !searched_children().contains(&pid));
    }
}
