//! `ssh-config`, and the programs that SSH sessions need: one outside, one inside.

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    thread,
};

use stockade_ssh::host_key;
use stockade_supervisor::ssh::{Handshake, Listen, Ssh};

use crate::{
    Failure,
    args::{SshArgs, SshConfigArgs, SshConnectArgs},
};

/// The options of `run` and `learn`.
pub(crate) fn options(args: SshArgs) -> Result<Option<Ssh>, Failure> {
    let Some(listen) = args.ssh else { return Ok(None) };
    let secret = args.ssh_token_secret.map(Handshake::Secret);
    let handshake = secret.or_else(|| args.ssh_token_key.map(Handshake::Key));
    Ok(Some(Ssh { listen, authorized_keys: args.ssh_authorized_keys, host_key: args.ssh_host_key, handshake }))
}

/// Prints a block for `~/.ssh/config`. The server's key stands in it, so that nothing is trusted on first use.
pub(crate) fn config(args: &SshConfigArgs) -> Result<u8, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if args.name.is_empty() || !args.name.chars().all(plain) {
        return Err(Failure::new(format!("--name {}: use letters, digits, `-`, `_` and `.`", args.name)));
    }
    let told = |e: &dyn std::fmt::Display| Failure::new(format!("--host-key {}: {e}", args.host_key.display()));
    let text = fs::read(&args.host_key).map_err(|e| told(&e))?;
    let key = host_key::public_line(&text).map_err(|e| told(&e))?;
    let mut lines = vec![format!("Host {}", args.name)];
    match &args.ssh {
        Listen::Tcp(address) => {
            lines.push(format!("    HostName {}", address.ip()));
            lines.push(format!("    Port {}", address.port()));
        }
        Listen::Unix(path) => {
            let program = quoted(&std::env::current_exe()?)?;
            let path = quoted(&std::path::absolute(path)?)?;
            lines.push(format!("    ProxyCommand {program} ssh-connect {path}"));
        }
    }
    lines.push("    User sandbox".to_owned());
    lines.push(format!("    HostKeyAlias {}", args.name));
    lines.push("    HostKeyAlgorithms ssh-ed25519".to_owned());
    lines.push("    StrictHostKeyChecking yes".to_owned());
    lines.push("    UserKnownHostsFile /dev/null".to_owned());
    lines.push(format!("    KnownHostsCommand /bin/echo {} {key}", args.name));
    if let Some(identity) = &args.identity {
        lines.push(format!("    IdentityFile {}", quoted(&std::path::absolute(identity)?)?));
        lines.push("    IdentitiesOnly yes".to_owned());
    }
    lines.push("    ForwardAgent no".to_owned());
    lines.push("    ForwardX11 no".to_owned());
    println!("{}", lines.join("\n"));
    Ok(0)
}

/// A path as ssh reads it in its configuration, where `%` begins an abbreviation.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().filter(|t| !t.contains(['"', '\\', '\n', '\'', '$', '`']));
    let text = text.ok_or_else(|| Failure::new(format!("{}: ssh cannot be told of this path", path.display())))?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

/// Standard input and output to a socket and back.
pub(crate) fn connect(args: &SshConnectArgs) -> Result<u8, Failure> {
    let told = |e: io::Error| Failure::new(format!("{}: {e}; is the sandbox running?", args.path.display()));
    let mut socket = UnixStream::connect(&args.path).map_err(told)?;
    let mut to = socket.try_clone()?;
    thread::spawn(move || {
        // When the client is gone its connection has no use.
        let _ = file(io::stdin()).and_then(|mut from| copy(&mut from, &mut to));
        let _ = to.shutdown(Shutdown::Write);
    });
    copy(&mut socket, &mut file(io::stdout())?)?;
    Ok(0)
}

/// Without the buffers of the standard library: a packet waits for no line feed.
fn file(standard: impl AsFd) -> io::Result<fs::File> {
    Ok(fs::File::from(standard.as_fd().try_clone_to_owned()?))
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..read).unwrap_or_default())?;
    }
}

/// Serves files to a session; runs inside.
pub(crate) fn sftp_server() -> Result<u8, Failure> {
    stockade_ssh::sftp::serve(file(io::stdin())?, file(io::stdout())?).map_err(Failure::new)?;
    Ok(0)
}
