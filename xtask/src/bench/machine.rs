//! What this machine gives, and what processes take of it.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one durable write.
const WRITE_BYTES: usize = 4 << 10;
/// Size of the file that is overwritten.
const FILE_BYTES: usize = 16 << 20;

/// How many `write` + `fdatasync` of 4 KiB a second on a zero-filled file in a directory.
pub(super) fn durable_writes_per_second(directory: &Path, for_at_least: Duration) -> std::io::Result<f64> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&vec![0; FILE_BYTES])?;
    file.sync_all()?;
    let block = vec![0x5a; WRITE_BYTES];
    let begin = Instant::now();
    let mut writes = 0_u32;
    while begin.elapsed() < for_at_least {
        let place = (writes as usize * WRITE_BYTES) % FILE_BYTES;
        durable_write(&mut file, place as u64, &block)?;
        writes += 1;
    }
    Ok(f64::from(writes) / begin.elapsed().as_secs_f64())
}

fn durable_write(file: &mut File, place: u64, block: &[u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(place))?;
    file.write_all(block)?;
    file.sync_data()
}

/// What processes have used since they started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Processor time.
    pub(super) cpu: Duration,
    /// Context switches of all their threads, wanted or not.
    pub(super) switches: u64,
}

impl Usage {
    /// Of these processes together.
    pub(super) fn of(pids: &[u32]) -> Self {
        pids.iter().map(|pid| Usage { cpu: cpu(*pid), switches: switches(*pid) }).fold(
            Usage::default(),
            |sum, one| Usage { cpu: sum.cpu + one.cpu, switches: sum.switches + one.switches },
        )
    }

    /// What was used since an earlier look.
    pub(super) fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

fn cpu(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field, the name, may hold spaces; user and system time are the 12th and 13th after it.
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}

fn switches(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .flat_map(|text| {
            text.lines()
                .filter(|line| line.contains("ctxt_switches:"))
                .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
                .collect::<Vec<_>>()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_this_process_grows() {
        let me = [std::process::id()];
        let before = Usage::of(&me);
        let begin = Instant::now();
        while Usage::of(&me).since(before).cpu < Duration::from_millis(20) {
            assert!(begin.elapsed() < Duration::from_secs(20), "no processor time is seen");
        }
        assert!(Usage::of(&me).switches > 0);
    }
}
