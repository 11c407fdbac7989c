//! How much memory a process has resident, where the system is Linux.

/// Memory of this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// All of it: `VmRSS`.
    pub all: u64,
    /// The most there was so far: `VmHWM`.
    pub peak: u64,
    /// What belongs to no file: `RssAnon`.
    pub anonymous: u64,
    /// Mapped pages of files, which the system can take back: `RssFile`.
    pub file: u64,
}

impl Resident {
    /// As it is now; `None` where the system does not say.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name| Some(kilobytes(status, name)? * 1024);
        Some(Self {
            all: field("VmRSS")?,
            peak: field("VmHWM")?,
            anonymous: field("RssAnon")?,
            file: field("RssFile")?,
        })
    }
}

fn kilobytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == field).then_some(value)
    })?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status_of_the_process() {
        let status = "Name:\tx\nVmPeak:\t 9999 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 1000 kB\n\
                      RssAnon:\t  700 kB\nRssFile:\t  300 kB\nThreads:\t3\n";
        let resident = Resident::parse(status).unwrap();
        assert_eq!(resident.peak, 1234 << 10);
        assert_eq!(resident.all, resident.anonymous + resident.file);
        assert_eq!(kilobytes(status, "VmSwap"), None);
        assert_eq!(kilobytes(status, "Threads"), None);
    }
}
