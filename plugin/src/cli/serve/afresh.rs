//! The same program once more, in the same process, with its memory empty.
//!
//! Calibrating, evaluating and writing leave memory behind: freed, but kept by
//! the allocator, in pieces that a model does not fit. On Unix the program
//! therefore starts itself anew when that is done (`execve`: the process and
//! its number stay, nobody has to watch a child), finds every result in the
//! cache, and only serves. Where memory was promised, the allocator is told to
//! keep nothing, in its environment, which it reads only when it starts: that
//! costs time at every token, so without a budget it is left alone. The socket,
//! bound before the long work, is handed on as standard input.

use std::net::TcpListener;

/// Starts the program anew with the same arguments and `--prepared`, to keep to
/// a `budget` of memory or not. Does not return if that works.
#[cfg(unix)]
pub(super) fn start(listener: TcpListener, budget: bool) -> anyhow::Error {
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error.into(),
    };
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .arg("--prepared")
        .stdin(Stdio::from(OwnedFd::from(listener)));
    if budget {
        crate::memory::overhead::with_allocator(&mut command);
    }
    command.exec().into()
}

/// The socket that [`start`] handed on.
#[cfg(unix)]
pub(super) fn listener() -> std::io::Result<TcpListener> {
    use std::os::fd::AsFd;

    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(TcpListener::from(socket))
}
