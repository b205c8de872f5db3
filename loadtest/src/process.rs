//! What the kernel knows of a process: memory, processor time, descriptors.

use std::time::Duration;

use anyhow::Context;

/// A process on this machine, seen from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

/// What a process has in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// All resident pages, in bytes.
    pub(crate) resident: u64,
    /// Those that belong to it alone and to no file, in bytes: heap and stacks.
    pub(crate) anonymous: u64,
}

impl Process {
    pub(crate) fn memory(self) -> anyhow::Result<Memory> {
        let status = self.read("status")?;
        let bytes = |field: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(field))
                .context("a field of /proc is missing")?;
            let kilobytes: u64 = line
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .context("no number in /proc")?;
            anyhow::Ok(kilobytes * 1024)
        };
        Ok(Memory {
            resident: bytes("VmRSS:")?,
            anonymous: bytes("RssAnon:")?,
        })
    }

    /// Processor time of all its threads, those that have ended included, in steps of 10 ms.
    pub(crate) fn processor_time(self) -> anyhow::Result<Duration> {
        const TICKS_PER_SECOND: u64 = 100; // USER_HZ, the same on every Linux

        let stat = self.read("stat")?;
        // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th field after it.
        let (_, fields) = stat.rsplit_once(')').context("no name in /proc")?;
        let mut times = fields.split_whitespace().skip(11);
        let mut next = || {
            times
                .next()
                .and_then(|field| field.parse::<u64>().ok())
                .context("no time in /proc")
        };
        let ticks = next()? + next()?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Time its living threads have run, as the scheduler counts it, exact to the microsecond. A thread that ends while they are
    /// read counts no more.
    pub(crate) fn run_time(self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0))? {
            let id = task?.file_name();
            let text = match self.read(&format!("task/{}/schedstat", id.display())) {
                Err(error) if ended(&error) => continue,
                text => text?,
            };
            let first = text.split_whitespace().next().unwrap_or_default();
            nanoseconds += first.parse::<u64>().context("no time in /proc")?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Its threads.
    pub(crate) fn threads(self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/task", self.0))?.count())
    }

    pub(crate) fn descriptors(self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.0))?.count())
    }

    fn read(self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))
    }
}

/// Whether what was read is gone: at the opening there is no such file, at the reading no such task.
fn ended(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(
            error.raw_os_error(),
            Some(nix::libc::ENOENT | nix::libc::ESRCH)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself() {
        let me = Process(std::process::id());
        let memory = me.memory().unwrap();
        assert!(memory.resident > memory.anonymous && memory.anonymous > 0);
        assert!(me.descriptors().unwrap() >= 3);
        assert!(me.threads().unwrap() >= 1);
        me.processor_time().unwrap();
        assert!(!me.run_time().unwrap().is_zero());
    }
}
