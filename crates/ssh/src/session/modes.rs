//! Terminal modes as RFC 4254 (section 8) encodes them, put onto a terminal.

use std::{io, os::fd::AsFd};

use russh::Pty;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// Sets what is known; what a kernel of another kind has and this one has not is left out.
pub(super) fn apply(terminal: impl AsFd, modes: &[(Pty, u32)]) -> io::Result<()> {
    let mut termios = tcgetattr(&terminal)?;
    for (mode, value) in modes {
        set(&mut termios, *mode, *value);
    }
    Ok(tcsetattr(&terminal, OptionalActions::Now, &termios)?)
}

fn set(termios: &mut Termios, mode: Pty, value: u32) {
    let on = value != 0;
    if let Some((_, code)) = CODES.iter().find(|(m, _)| *m == mode) {
        // 255 stands for a character that is switched off, which is 0 here.
        termios.special_codes[*code] = u8::try_from(value).ok().filter(|v| *v != 255).unwrap_or(0);
    } else if let Some((_, flag)) = INPUT.iter().find(|(m, _)| *m == mode) {
        termios.input_modes.set(*flag, on);
    } else if let Some((_, flag)) = LOCAL.iter().find(|(m, _)| *m == mode) {
        termios.local_modes.set(*flag, on);
    } else if let Some((_, flag)) = OUTPUT.iter().find(|(m, _)| *m == mode) {
        termios.output_modes.set(*flag, on);
    } else if let Some((_, flag)) = CONTROL.iter().find(|(m, _)| *m == mode) {
        termios.control_modes.set(*flag, on);
    }
}

const CODES: &[(Pty, SpecialCodeIndex)] = &[
    (Pty::VINTR, SpecialCodeIndex::VINTR),
    (Pty::VQUIT, SpecialCodeIndex::VQUIT),
    (Pty::VERASE, SpecialCodeIndex::VERASE),
    (Pty::VKILL, SpecialCodeIndex::VKILL),
    (Pty::VEOF, SpecialCodeIndex::VEOF),
    (Pty::VEOL, SpecialCodeIndex::VEOL),
    (Pty::VEOL2, SpecialCodeIndex::VEOL2),
    (Pty::VSTART, SpecialCodeIndex::VSTART),
    (Pty::VSTOP, SpecialCodeIndex::VSTOP),
    (Pty::VSUSP, SpecialCodeIndex::VSUSP),
    (Pty::VREPRINT, SpecialCodeIndex::VREPRINT),
    (Pty::VWERASE, SpecialCodeIndex::VWERASE),
    (Pty::VLNEXT, SpecialCodeIndex::VLNEXT),
    (Pty::VDISCARD, SpecialCodeIndex::VDISCARD),
];

const INPUT: &[(Pty, InputModes)] = &[
    (Pty::IGNPAR, InputModes::IGNPAR),
    (Pty::PARMRK, InputModes::PARMRK),
    (Pty::INPCK, InputModes::INPCK),
    (Pty::ISTRIP, InputModes::ISTRIP),
    (Pty::INLCR, InputModes::INLCR),
    (Pty::IGNCR, InputModes::IGNCR),
    (Pty::ICRNL, InputModes::ICRNL),
    (Pty::IUCLC, InputModes::IUCLC),
    (Pty::IXON, InputModes::IXON),
    (Pty::IXANY, InputModes::IXANY),
    (Pty::IXOFF, InputModes::IXOFF),
    (Pty::IMAXBEL, InputModes::IMAXBEL),
    (Pty::IUTF8, InputModes::IUTF8),
];

const LOCAL: &[(Pty, LocalModes)] = &[
    (Pty::ISIG, LocalModes::ISIG),
    (Pty::ICANON, LocalModes::ICANON),
    (Pty::XCASE, LocalModes::XCASE),
    (Pty::ECHO, LocalModes::ECHO),
    (Pty::ECHOE, LocalModes::ECHOE),
    (Pty::ECHOK, LocalModes::ECHOK),
    (Pty::ECHONL, LocalModes::ECHONL),
    (Pty::NOFLSH, LocalModes::NOFLSH),
    (Pty::TOSTOP, LocalModes::TOSTOP),
    (Pty::IEXTEN, LocalModes::IEXTEN),
    (Pty::ECHOCTL, LocalModes::ECHOCTL),
    (Pty::ECHOKE, LocalModes::ECHOKE),
    (Pty::PENDIN, LocalModes::PENDIN),
];

const OUTPUT: &[(Pty, OutputModes)] = &[
    (Pty::OPOST, OutputModes::OPOST),
    (Pty::OLCUC, OutputModes::OLCUC),
    (Pty::ONLCR, OutputModes::ONLCR),
    (Pty::OCRNL, OutputModes::OCRNL),
    (Pty::ONOCR, OutputModes::ONOCR),
    (Pty::ONLRET, OutputModes::ONLRET),
];

const CONTROL: &[(Pty, ControlModes)] = &[
    (Pty::CS7, ControlModes::CS7),
    (Pty::CS8, ControlModes::CS8),
    (Pty::PARENB, ControlModes::PARENB),
    (Pty::PARODD, ControlModes::PARODD),
];

#[cfg(test)]
mod tests {
    use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};

    use super::*;

    #[test]
    fn modes_reach_the_terminal() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        apply(&master, &[(Pty::ECHO, 0), (Pty::VINTR, 7), (Pty::VEOL, 255), (Pty::TTY_OP_ISPEED, 38400)]).unwrap();
        let termios = tcgetattr(&slave).unwrap();
        assert!(!termios.local_modes.contains(LocalModes::ECHO));
        assert!(termios.local_modes.contains(LocalModes::ICANON));
        assert_eq!(termios.special_codes[SpecialCodeIndex::VINTR], 7);
        assert_eq!(termios.special_codes[SpecialCodeIndex::VEOL], 0);
    }
}
