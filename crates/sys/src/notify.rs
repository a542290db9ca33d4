//! System calls reported to another process before they happen (seccomp user notification), and handles to processes.
//!
//! The listener sees who calls and with which descriptor. It never decides by memory of the caller, which may change
//! after it was read, and it lets every call go on: what it gains is knowledge, not control. When the last listener
//! closes, the kernel answers the call with `ENOSYS`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use crate::process::check;

// linux/seccomp.h
const SET_MODE_FILTER: libc::c_uint = 1;
const NEW_LISTENER: libc::c_uint = 1 << 3;
/// A signal does not interrupt a call whose notification was taken: else Go's preemption would repeat it for ever.
const WAIT_KILLABLE: libc::c_uint = 1 << 5;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const IOCTL_RECV: libc::c_ulong = 0xc050_2100;
const IOCTL_SEND: libc::c_ulong = 0xc018_2101;
const IOCTL_ID_VALID: libc::c_ulong = 0x4008_2102;
const IOCTL_SET_FLAGS: libc::c_ulong = 0x4008_2104;
const FD_SYNC_WAKE_UP: libc::c_ulong = 1;
const FLAG_CONTINUE: u32 = 1;

// linux/pidfd.h
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;

/// Has the kernel report every `connect` of this thread, and of all it starts from now on, to the listener returned
/// here. Close-on-exec. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
///
/// # Errors
/// `EBUSY` where an outer filter has a listener already; `EINVAL` before Linux 5.0; else what `seccomp(2)` says.
pub fn report_connects() -> io::Result<OwnedFd> {
    let (ld, jeq, ret) = (0x20, 0x15, 0x06);
    let number = u32::try_from(libc::SYS_connect).map_err(io::Error::other)?;
    // Foreign architectures are killed, and x32 is refused, by the filter that comes after this one.
    let mut code = [
        libc::sock_filter { code: ld, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: jeq, jt: 0, jf: 1, k: number },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: RET_USER_NOTIF },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: RET_ALLOW },
    ];
    match install(&mut code, NEW_LISTENER | WAIT_KILLABLE) {
        // Before Linux 5.19.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => install(&mut code, NEW_LISTENER),
        other => other,
    }
}

fn install(code: &mut [libc::sock_filter], flags: libc::c_uint) -> io::Result<OwnedFd> {
    let len = libc::c_ushort::try_from(code.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    // SAFETY: the program and its instructions outlive the call, which copies them.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
    check(fd)?;
    // SAFETY: with NEW_LISTENER the result is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(io::Error::other)?) })
}

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    id: u64,
    /// The calling thread, in the reader's pid namespace; 0 when it cannot be seen from there.
    pub tid: u32,
    /// The call's first argument: of `connect`, the descriptor.
    pub fd: i32,
}

/// The reading end.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes a descriptor made by [`report_connects`].
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        // Since Linux 6.6: caller and listener take turns on one processor, which halves the time of a call.
        // SAFETY: the argument is a number.
        unsafe { libc::ioctl(fd.as_raw_fd(), IOCTL_SET_FLAGS as _, FD_SYNC_WAKE_UP) };
        Self(fd)
    }

    /// Waits for the next call.
    ///
    /// # Errors
    /// `ENOENT` when the caller went away first, `EINTR`; anything else means that the listener is of no more use.
    pub fn next(&self) -> io::Result<Call> {
        // SAFETY: plain data for which zero is valid, and what the kernel asks for.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: `call` outlives the call and has the size that the request number names.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_RECV as _, &raw mut call) }.into())?;
        // Arguments are compared as the kernel does: a descriptor is an int.
        let fd = (call.data.args[0] & u64::from(u32::MAX)) as u32;
        Ok(Call { id: call.id, tid: call.pid, fd: fd.cast_signed() })
    }

    /// Whether the caller still waits: what was read of its `/proc` entries meanwhile was its own.
    #[must_use]
    pub fn waits(&self, call: Call) -> bool {
        // SAFETY: the number outlives the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_ID_VALID as _, &raw const call.id) == 0 }
    }

    /// Lets the call go on.
    ///
    /// # Errors
    /// `ENOENT` when the caller is gone.
    pub fn let_go(&self, call: Call) -> io::Result<()> {
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: FLAG_CONTINUE };
        // SAFETY: `answer` outlives the call and has the size that the request number names.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_SEND as _, &raw mut answer) }.into())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The parent of the process that `pidfd` names, in the caller's pid namespace.
///
/// # Errors
/// `ESRCH` when it is reaped; `ENOTTY` or `EINVAL` before Linux 6.13.
pub fn parent(pidfd: impl AsFd) -> io::Result<u32> {
    /// `struct pidfd_info`, as long as it was at first.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        pid: u32,
        tgid: u32,
        ppid: u32,
        ids: [u32; 8],
        exit_code: i32,
    }
    let mut info = Info { mask: 1, ..Info::default() };
    // SAFETY: `info` outlives the call and has the size that the request number names.
    check(unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) }.into())?;
    Ok(info.ppid)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, process::Command, thread};

    use super::*;
    use crate::channel::Channel;

    #[test]
    fn a_connect_is_reported_and_goes_on() {
        let (ours, theirs) = Channel::pair().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        // A thread's filter ends with it.
        let caller = thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            let listener = report_connects().unwrap();
            theirs.send(b"", &[listener.as_fd()]).unwrap();
            drop(listener);
            std::net::TcpStream::connect(target).map(|c| (c.local_addr().unwrap(), rustix::thread::gettid()))
        });
        let fd = ours.recv().unwrap().unwrap().fds.remove(0);
        let listener = Listener::new(fd);
        let call = listener.next().unwrap();
        let link = std::fs::read_link(format!("/proc/{}/fd/{}", call.tid, call.fd)).unwrap();
        assert!(link.to_str().unwrap().starts_with("socket:["));
        assert!(listener.waits(call));
        listener.let_go(call).unwrap();
        let (local, tid) = caller.join().unwrap().unwrap();
        assert_eq!(server.accept().unwrap().1, local);
        assert_eq!(tid.as_raw_nonzero().get().cast_unsigned(), call.tid);
        assert!(!listener.waits(call));
    }

    #[test]
    fn a_parent_is_known_by_handle() {
        let mut child = Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        match parent(&pidfd) {
            Ok(ppid) => assert_eq!(ppid, std::process::id()),
            // Linux before 6.13.
            Err(e) => assert!(matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL))),
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        parent(&pidfd).unwrap_err();
    }
}
