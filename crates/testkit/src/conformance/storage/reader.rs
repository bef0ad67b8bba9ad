//! What is read beside the storage thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use atomix_protocol::{Entry, WriteBatch};
use bytes::Bytes;

use super::{Server, entries, entry, id, index, term};

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
    for (from, through) in [(0, 5), (41, 50), (5, 4)] {
        assert_eq!(reader.entries(index(from), index(through), u64::MAX), Ok(None), "{from} to {through}");
    }
    drop(reader);
    server.restart();
    assert_eq!(server.reader().entries(index(1), index(40), u64::MAX), Ok(Some(all)));
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
