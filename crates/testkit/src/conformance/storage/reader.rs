//! What is read beside the storage thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use atomix_protocol::{Entry, WriteBatch};
use bytes::Bytes;

use super::{Server, describe, entries, entry, finish_snapshot, id, index, term};

pub(super) fn reader_finds_ranges(mut server: Server) {
    server.identify();
    let mut reader = server.reader();
    server.append(entries(term(1), 1..=20));
    server.append(entries(term(2), 21..=40));
    let all = [entries(term(1), 1..=20), entries(term(2), 21..=40)].concat();
    for from in 1..=40 {
        for through in [from, from + 1, from + 13, 40, 99] {
            let wanted = &all[from - 1..through.min(40)];
            let (from, through) = (index(from as u64), index(through as u64));
            assert_eq!(reader.entries(from, through, u64::MAX), Ok(Some(wanted.to_vec())));
            assert_eq!(reader.entries(from, through, 0), Ok(Some(wanted[..1].to_vec())), "at least one");
            let two: u64 = wanted.iter().take(2).map(Entry::weight).sum();
            let fitting = &wanted[..wanted.len().min(2)];
            assert_eq!(reader.entries(from, through, two), Ok(Some(fitting.to_vec())));
            assert_eq!(reader.entries(from, through, two - 1), Ok(Some(wanted[..1].to_vec())));
        }
    }
    let beyond = [(0, 5), (0, 0), (41, 50), (5, 4), (u64::MAX, u64::MAX), (u64::MAX, 1)];
    for (from, through) in beyond {
        assert_eq!(reader.entries(index(from), index(through), u64::MAX), Ok(None), "{from} to {through}");
    }
    let last = all[39..].to_vec();
    assert_eq!(reader.entries(index(40), index(u64::MAX), u64::MAX), Ok(Some(last)));
    drop(reader);
    server.restart();
    assert_eq!(server.reader().entries(index(1), index(u64::MAX), u64::MAX), Ok(Some(all)));
}

pub(super) fn reader_finds_snapshots(mut server: Server) {
    server.identify();
    let mut reader = server.reader();
    let last = id(term(1), index(4));
    let data: Vec<u8> = (0..3_333u32).map(|at| (at * 7) as u8).collect();
    server.snapshot(last, &data);
    for _ in 0..2 {
        let mut found = Vec::new();
        while found.len() < data.len() {
            let piece = reader.snapshot(last, found.len() as u64, 500).expect("reads").expect("is there");
            assert!(!piece.is_empty() && piece.len() <= 500);
            found.extend_from_slice(&piece);
        }
        assert_eq!(found, data);
        assert_eq!(reader.snapshot(last, data.len() as u64, 500), Ok(Some(Bytes::new())), "right at the end");
        assert_eq!(reader.snapshot(last, 7, 0), Ok(Some(Bytes::new())), "no bytes asked for");
        let rest = reader.snapshot(last, 3_330, usize::MAX);
        assert_eq!(rest, Ok(Some(Bytes::copy_from_slice(&data[3_330..]))), "all that is left");
        assert_eq!(reader.snapshot(last, data.len() as u64 + 1, 500), Ok(None), "beyond the end");
        assert_eq!(reader.snapshot(last, u64::MAX, 500), Ok(None), "far beyond the end");
        assert_eq!(reader.snapshot(id(term(1), index(3)), 0, 500), Ok(None), "another one");
        drop(reader);
        server.restart();
        reader = server.reader();
    }
}

pub(super) fn reader_beside_writer(mut server: Server) {
    const LAST: u64 = 200;
    server.identify();
    let mut reader = server.reader();
    // Everything up to here has its final term; behind it, truncations happen.
    let settled = &AtomicU64::new(0);
    let found = &AtomicU64::new(0);
    thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut turn = 0;
            while settled.load(Ordering::Acquire) < LAST {
                turn += 1;
                let known = settled.load(Ordering::Acquire);
                let from = index(known.saturating_sub(turn % 15) + 1);
                let read = reader.entries(from, index(LAST), 3_000).expect("reads").unwrap_or_default();
                for (at, read) in (from.0..).zip(read) {
                    assert_eq!(read, entry(read.id.term, index(at)), "whole, and in order");
                    assert!(at > known || read.id.term == term(2), "{read:?} was truncated before");
                    found.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        for at in 1..=LAST {
            server.append([entry(term(2), index(at))]);
            settled.store(at, Ordering::Release);
            // A suffix that never commits, and goes.
            server.append(entries(term(3), at + 1..=at + 3));
            server
                .write(WriteBatch { truncate_after: Some(id(term(2), index(at))), ..WriteBatch::default() });
            if at % 50 == 0 {
                server.snapshot(id(term(2), index(at - 20)), b"some");
                server.storage().compact(index(at - 20)).expect("compacts");
            }
            // Neither runs away from the other.
            while at < LAST && found.load(Ordering::Acquire) < at && !reading.is_finished() {
                thread::yield_now();
            }
        }
        reading.join().expect("the reader ends well");
    });
    server.finds(&entries(term(2), LAST - 19..=LAST));
}

/// Whichever snapshot a piece is of, it is of that one, whatever is published meanwhile.
pub(super) fn snapshots_read_while_newer_come(mut server: Server) {
    const LAST: u64 = 24;
    let data = |at: u64| vec![at as u8; 150_000];
    server.identify();
    server.append(entries(term(1), 1..=LAST));
    let mut reader = server.reader();
    let mut writer = server.writer();
    let newest = &AtomicU64::new(0);
    let whole = &AtomicU64::new(0);
    thread::scope(|scope| {
        let reading = scope.spawn(move || {
            while newest.load(Ordering::Acquire) < LAST || whole.load(Ordering::Acquire) < LAST {
                let at = newest.load(Ordering::Acquire);
                let mut found = Vec::new();
                // It may go at any time, but never become another.
                while let Some(piece) =
                    reader.snapshot(id(term(1), index(at)), found.len() as u64, 9_000).expect("reads")
                {
                    if piece.is_empty() {
                        assert_eq!(found, data(at), "the snapshot of {at}");
                        whole.store(at, Ordering::Release);
                        break;
                    }
                    found.extend_from_slice(&piece);
                    assert_eq!(found, data(at)[..found.len()], "the snapshot of {at}");
                }
            }
        });
        for at in 1..=LAST {
            let meta = finish_snapshot(&mut *writer, id(term(1), index(at)), &data(at));
            server.storage().publish(&meta).expect("publishes");
            newest.store(at, Ordering::Release);
            // Every fourth is read to its end before it is replaced.
            while at % 4 == 0 && whole.load(Ordering::Acquire) < at && !reading.is_finished() {
                thread::yield_now();
            }
        }
        reading.join().expect("the reader ends well");
    });
}

/// A snapshot is written by one thread while another writes the log.
pub(super) fn writer_beside_log(mut server: Server) {
    let data: Vec<u8> = (0..1_500_000u32).map(|at| (at / 7) as u8).collect();
    server.identify();
    server.append(entries(term(1), 1..=5));
    let mut writer = server.writer();
    let last = id(term(1), index(3));
    let meta = thread::scope(|scope| {
        let writing = scope.spawn(|| finish_snapshot(&mut *writer, last, &data));
        for at in 6..=60 {
            server.append(entries(term(1), [at]));
        }
        writing.join().expect("the writer ends well")
    });
    server.storage().publish(&meta).expect("publishes");
    let mut reader = server.reader();
    let mut found = Vec::new();
    while found.len() < data.len() {
        let piece = reader.snapshot(last, found.len() as u64, 100_000).expect("reads").expect("is there");
        found.extend_from_slice(&piece);
    }
    assert_eq!(found, data);
    drop((reader, writer));
    server.finds(&entries(term(1), 4..=60));
    assert_eq!(server.recovered.snapshot, Some(meta));
}

/// Side objects may outlive the storage: they answer rightly or refuse, and what they do is found by nobody.
pub(super) fn side_objects_outlive(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=9));
    let meta = server.snapshot(id(term(1), index(2)), b"two");
    let (mut reader, mut writer) = (server.reader(), server.writer());
    writer.begin(id(term(1), index(5))).expect("begins");
    server.stop();
    if let Ok(found) = reader.entries(index(3), index(4), u64::MAX) {
        assert_eq!(found, Some(entries(term(1), 3..=4)));
    }
    if let Ok(found) = reader.snapshot(meta.last, 0, 99) {
        assert_eq!(found, Some(Bytes::from_static(b"two")));
    }
    let five = describe(id(term(1), index(5)), b"five");
    let _ = writer.write(b"five").and_then(|()| writer.finish(&five));
    drop((reader, writer));
    server.finds(&entries(term(1), 3..=9));
    assert_eq!(server.recovered.snapshot, Some(meta));
}
