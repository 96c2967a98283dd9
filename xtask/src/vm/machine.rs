//! The virtual machine: QEMU's command line for this architecture, and a boot with its console read line by line.

use std::{
    env::consts::ARCH,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::{prctl, signal::Signal};

use crate::exec::line;

/// What differs from architecture to architecture.
struct Board {
    emulator: &'static str,
    options: &'static [&'static str],
    /// The console's name in the kernel.
    console: &'static str,
}

const X86_64: Board = Board { emulator: "qemu-system-x86_64", options: &[], console: "ttyS0" };
const AARCH64: Board = Board { emulator: "qemu-system-aarch64", options: &["-M", "virt"], console: "ttyAMA0" };

fn board() -> Result<&'static Board> {
    match ARCH {
        "x86_64" => Ok(&X86_64),
        "aarch64" => Ok(&AARCH64),
        other => bail!("there is no virtual machine for {other} here yet: x86_64 and aarch64 have one"),
    }
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accel {
    /// The processor.
    Kvm,
    /// QEMU's translator, five to ten times slower.
    Tcg,
}

impl Accel {
    /// KVM where a kernel boots under it; a /dev/kvm that opens is no proof, for a virtual machine may have one that
    /// hangs.
    pub(super) fn find(kernel: &Path, log: &Path) -> Result<Self> {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Tcg);
        }
        // Without an initramfs the kernel panics within a second, and QEMU ends.
        let trial = Boot { kernel, initrd: None, parameters: "", log, limit: Duration::from_secs(15) };
        let mut booted = false;
        let end = trial.run(Self::Kvm, |line| booted |= line.contains("Kernel panic"));
        Ok(if booted && matches!(end, Ok(End::Off)) { Self::Kvm } else { Self::Tcg })
    }

    /// How many times longer than on the bare machine everything may take.
    pub(super) fn patience(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 5,
        }
    }

    fn options(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

/// One boot.
pub(super) struct Boot<'a> {
    /// The kernel's image.
    pub kernel: &'a Path,
    /// The root in memory.
    pub initrd: Option<&'a Path>,
    /// More of the kernel's command line.
    pub parameters: &'a str,
    /// Where the whole console goes.
    pub log: &'a Path,
    /// How long it may take.
    pub limit: Duration,
}

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The guest switched itself off, or panicked.
    Off,
    /// It took too long, and was ended.
    TimedOut,
}

impl Boot<'_> {
    /// Boots, and hands over each line of the console as it comes.
    pub(super) fn run(&self, accel: Accel, mut each: impl FnMut(&str)) -> Result<End> {
        let mut log = File::create(self.log).with_context(|| format!("cannot create {}", self.log.display()))?;
        let mut command = self.command(accel)?;
        let mut guest = Guest(command.spawn().with_context(|| format!("cannot start {}", line(&command)))?);
        let console = guest.0.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                // The receiver is gone when the time is up.
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let start = Instant::now();
        let end = loop {
            match lines.recv_timeout(self.limit.saturating_sub(start.elapsed())) {
                Ok(bytes) => {
                    let text = clean(&bytes);
                    writeln!(log, "{text}").with_context(|| format!("cannot write {}", self.log.display()))?;
                    each(&text);
                }
                Err(RecvTimeoutError::Disconnected) => break End::Off,
                Err(RecvTimeoutError::Timeout) => break End::TimedOut,
            }
        };
        if end == End::TimedOut {
            guest.0.kill().context("cannot end QEMU")?;
        }
        let status = guest.0.wait().context("cannot wait for QEMU")?;
        if reader.join().is_err() {
            bail!("reading QEMU's console failed");
        }
        if end == End::Off && !status.success() {
            let said = guest.complaint();
            bail!("QEMU failed ({status}): {said}");
        }
        Ok(end)
    }

    fn command(&self, accel: Accel) -> Result<Command> {
        let board = board()?;
        let mut qemu = Command::new(board.emulator);
        qemu.args(board.options).args(accel.options());
        qemu.args(["-m", "2048", "-smp", "2", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
        qemu.arg("-kernel").arg(self.kernel);
        if let Some(initrd) = self.initrd {
            qemu.arg("-initrd").arg(initrd);
        }
        // The lockdown module and BPF's, as a distribution boots them; a panic ends the machine at once.
        let parameters = format!(
            "console={} quiet panic=-1 mitigations=off lsm=lockdown,capability,bpf {}",
            board.console, self.parameters
        );
        qemu.args(["-append", parameters.trim_end()]);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl(2) is async-signal-safe.
        unsafe {
            // Whatever ends us, also a signal that nobody can catch, ends the machine.
            qemu.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        Ok(qemu)
    }
}

/// QEMU, ended with us also when we fail half way.
struct Guest(Child);

impl Guest {
    fn complaint(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut said).unwrap_or_default();
        }
        said.trim().to_owned()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().unwrap_or_default();
            // Nobody is left to tell.
            drop(self.0.wait());
        }
    }
}

/// A line as it was meant: serial consoles end lines in CR LF, and firmware sends escape sequences.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                // ECMA-48: ESC, then either one more character, or `[`, parameters, and a final one from @ to ~.
                if rest.next() == Some('[') {
                    rest.by_ref().find(|c| ('@'..='~').contains(c));
                }
            }
            '\r' => {}
            other => clean.push(other),
        }
    }
    clean
}

/// Removes what a boot has no more use for.
pub(super) fn discard(file: &Path) -> Result<()> {
    fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Accel, Boot, clean};
    use crate::exec::line;

    #[test]
    fn the_console_is_read_as_text() {
        assert_eq!(clean(b"\x1bc\x1b[?7l\x1b[2Jtest result: ok\r"), "test result: ok");
    }

    #[test]
    fn the_kernel_is_told_where_its_console_is() {
        let boot = Boot {
            kernel: Path::new("vmlinuz"),
            initrd: None,
            parameters: "rdinit=/x",
            log: Path::new("log"),
            limit: std::time::Duration::ZERO,
        };
        let text = line(&boot.command(Accel::Tcg).unwrap());
        assert!(text.contains("-append console=tty"), "{text}");
        assert!(text.ends_with("lsm=lockdown,capability,bpf rdinit=/x"), "{text}");
    }
}
