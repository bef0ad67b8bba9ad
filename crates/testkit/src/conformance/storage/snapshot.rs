//! Snapshots, and how the log belongs to them.

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{ClusterTime, HardState, ServerId, WriteBatch};
use atomix_storage::StorageError;
use bytes::Bytes;

use super::{Server, configuration, describe, entries, finish_snapshot, id, identity, index, term};

pub(super) fn snapshot_until_published(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=5));
    let last = id(term(1), index(3));
    let mut writer = server.writer();
    let meta = finish_snapshot(&mut *writer, last, b"all of it");
    assert_eq!(server.reader().snapshot(last, 0, 99), Ok(None), "not published");
    server.storage().publish(&meta).expect("publishes");
    assert_eq!(server.reader().snapshot(last, 0, 99), Ok(Some(Bytes::from_static(b"all of it"))));
    let again = server.storage().publish(&meta);
    assert!(matches!(again, Err(StorageError::BadSnapshot(_))), "published twice: {again:?}");
    let unpublished = finish_snapshot(&mut *writer, id(term(1), index(4)), b"more");
    drop(writer);
    server.finds(&entries(term(1), 4..=5));
    assert_eq!(server.recovered.snapshot, Some(meta.clone()));
    let late = server.storage().publish(&unpublished);
    assert!(matches!(late, Err(StorageError::BadSnapshot(_))), "published after a restart: {late:?}");
    assert_eq!(server.reader().snapshot(last, 0, 99), Ok(Some(Bytes::from_static(b"all of it"))));
}

pub(super) fn bad_snapshots(mut server: Server) {
    server.identify();
    let last = id(term(1), index(3));
    let good = describe(last, b"bytes");
    let bad = [
        SnapshotMeta { size: 4, ..good.clone() },
        SnapshotMeta { size: 6, ..good.clone() },
        SnapshotMeta { checksum: good.checksum ^ 1, ..good.clone() },
        SnapshotMeta { last: id(term(1), index(4)), ..good.clone() },
    ];
    let mut writer = server.writer();
    assert!(writer.write(b"bytes").is_err(), "nothing was begun");
    assert_eq!(writer.writing(), None);
    for meta in bad {
        writer.begin(last).expect("begins");
        writer.write(b"bytes").expect("takes bytes");
        let refused = writer.finish(&meta);
        assert!(matches!(refused, Err(StorageError::BadSnapshot(_))), "{meta:?}: {refused:?}");
        for meta in [&meta, &good] {
            let refused = server.storage().publish(meta);
            assert!(matches!(refused, Err(StorageError::BadSnapshot(_))), "{meta:?}: {refused:?}");
        }
        assert!(writer.finish(&good).is_err(), "what was written is dropped");
        assert_eq!(writer.writing(), None);
    }
    let finished = finish_snapshot(&mut *writer, last, b"bytes");
    assert_eq!(writer.writing(), None, "finished");
    let other = SnapshotMeta { time: ClusterTime(1), ..finished.clone() };
    assert!(
        matches!(server.storage().publish(&other), Err(StorageError::BadSnapshot(_))),
        "another description"
    );
    server.append(entries(term(1), 1..=1));
    drop(writer);
    server.restart();
    assert_eq!(server.recovered.snapshot, None);
}

pub(super) fn begin_drops(mut server: Server) {
    server.identify();
    let mut writer = server.writer();
    let dropped = finish_snapshot(&mut *writer, id(term(1), index(3)), b"first");
    writer.begin(id(term(1), index(4))).expect("begins");
    writer.write(b"half").expect("takes bytes");
    writer.begin(id(term(1), index(5))).expect("begins anew");
    assert_eq!((writer.writing(), writer.written()), (Some(id(term(1), index(5))), (0, 0)));
    let refused = server.storage().publish(&dropped);
    assert!(matches!(refused, Err(StorageError::BadSnapshot(_))), "{refused:?}");
    writer.finish(&describe(id(term(1), index(5)), b"")).expect("an empty snapshot is one");
    server.storage().publish(&describe(id(term(1), index(5)), b"")).expect("publishes");
    assert_eq!(server.reader().snapshot(id(term(1), index(5)), 0, 9), Ok(Some(Bytes::new())));
}

pub(super) fn newest_snapshot_counts(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=9));
    for at in [2, 5, 8] {
        let last = id(term(1), index(at));
        let data = vec![at as u8; 2_500];
        let meta = server.snapshot(last, &data);
        assert_eq!(server.reader().snapshot(last, 0, 9_999), Ok(Some(Bytes::from(data))));
        server.finds(&entries(term(1), at + 1..=9));
        assert_eq!(server.recovered.snapshot, Some(meta));
    }
    let again = server.snapshot(id(term(1), index(8)), b"the same again");
    server.finds(&entries(term(1), 9..=9));
    assert_eq!(server.recovered.snapshot, Some(again.clone()));
    let mut writer = server.writer();
    let older = finish_snapshot(&mut *writer, id(term(1), index(7)), b"older");
    let refused = server.storage().publish(&older);
    assert!(matches!(refused, Err(StorageError::BadSnapshot(_))), "older than the newest: {refused:?}");
    let found = server.reader().snapshot(again.last, 0, 99);
    assert_eq!(found, Ok(Some(Bytes::from_static(b"the same again"))), "nothing has changed");
    drop(writer);
    server.append(entries(term(1), 10..=10));
    server.finds(&entries(term(1), 9..=10));
    assert_eq!(server.recovered.snapshot, Some(again));
}

/// Lengths around what devices and databases write at once.
pub(super) fn snapshots_of_all_lengths(mut server: Server) {
    server.identify();
    let lengths = [0, 1, 4_095, 4_096, 4_097, 61_439, 61_440, 61_441, 262_144, 1_500_001];
    server.append(entries(term(1), 1..=lengths.len() as u64));
    for (at, length) in (1..).zip(lengths) {
        let data: Vec<u8> = (0..length).map(|byte| (byte % 251 + at as usize) as u8).collect();
        let last = id(term(1), index(at));
        let meta = server.snapshot(last, &data);
        for _ in 0..2 {
            let mut reader = server.reader();
            let mut found = Vec::new();
            for offset in [0, 1, 4_096, 61_440, 100_000] {
                let piece = reader.snapshot(last, offset, 10).expect("reads");
                let wanted = data.get(offset as usize..).map(|rest| &rest[..rest.len().min(10)]);
                assert_eq!(piece.as_deref(), wanted, "10 bytes at {offset} of {length}");
            }
            while found.len() < length {
                let piece = reader.snapshot(last, found.len() as u64, 70_000).expect("reads");
                found.extend_from_slice(&piece.expect("is there"));
            }
            assert!(found == data, "{length} bytes");
            drop(reader);
            server.restart();
            assert_eq!(server.recovered.snapshot.as_ref(), Some(&meta));
        }
    }
}

pub(super) fn one_writer_after_another(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=9));
    let last = id(term(1), index(4));
    let mut first = server.writer();
    first.begin(last).expect("begins");
    first.write(b"half").expect("takes bytes");
    drop(first);
    let mut second = server.writer();
    assert_eq!(second.writing(), None);
    assert!(second.write(b"the other half").is_err(), "nothing was begun");
    let meta = finish_snapshot(&mut *second, last, b"whole");
    drop(second);
    server.storage().publish(&meta).expect("it outlives its writer");
    assert_eq!(server.reader().snapshot(last, 0, 99), Ok(Some(Bytes::from_static(b"whole"))));
    server.finds(&entries(term(1), 5..=9));
}

/// What consensus does when it has installed a snapshot of what it has already, and more.
pub(super) fn truncation_to_the_snapshot(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=9));
    let last = id(term(1), index(5));
    server.snapshot(last, b"5");
    for compacted in [false, true] {
        if compacted {
            server.storage().compact(index(5)).expect("compacts");
        }
        server.write(WriteBatch { truncate_after: Some(last), ..WriteBatch::default() });
        server.finds(&[]);
        server.write(WriteBatch {
            truncate_after: Some(last),
            entries: entries(term(2), 6..=8),
            ..WriteBatch::default()
        });
        server.finds(&entries(term(2), 6..=8));
        let read = server.reader().entries(index(6), index(9), u64::MAX);
        assert_eq!(read, Ok(Some(entries(term(2), 6..=8))));
    }
}

pub(super) fn compaction_again_and_again(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=40));
    let long = vec![7; 100_000];
    for at in [10, 20, 30] {
        server.snapshot(id(term(1), index(at)), &long);
        for through in [0, 5, at, at, at - 1, u64::MAX] {
            server.storage().compact(index(through)).expect("compacts");
        }
        let kept = server.reader().entries(index(at + 1), index(u64::MAX), u64::MAX);
        assert_eq!(kept, Ok(Some(entries(term(1), at + 1..=40))));
    }
    server.finds(&entries(term(1), 31..=40));
    server.storage().compact(index(30)).expect("compacts after a start");
    server.write(WriteBatch {
        truncate_after: Some(id(term(1), index(35))),
        entries: entries(term(2), 36..=37),
        ..WriteBatch::default()
    });
    server.finds(&[entries(term(1), 31..=35), entries(term(2), 36..=37)].concat());
}

pub(super) fn covered_entries(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=5));
    server.snapshot(id(term(1), index(5)), b"5");
    server.finds(&[]);
    server.append(entries(term(1), 6..=7));
    server.finds(&entries(term(1), 6..=7));
}

pub(super) fn log_behind_snapshot(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=5));
    let meta = server.snapshot(id(term(2), index(9)), b"9");
    server.finds(&[]);
    assert_eq!(server.recovered.snapshot, Some(meta));
    server.append(entries(term(2), 10..=11));
    assert_eq!(
        server.reader().entries(index(3), index(11), u64::MAX),
        Ok(None),
        "the old log is no part of this one"
    );
    server.finds(&entries(term(2), 10..=11));
}

pub(super) fn log_against_snapshot(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=12));
    server.snapshot(id(term(2), index(9)), b"9");
    server.finds(&[]);
    server.append(entries(term(2), 10..=11));
    server.finds(&entries(term(2), 10..=11));
}

pub(super) fn truncation_beyond_the_end(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=5));
    for (of, at) in [(2, 9), (3, 20)] {
        let last = id(term(of), index(at));
        server.snapshot(last, b"installed");
        server.write(WriteBatch { truncate_after: Some(last), ..WriteBatch::default() });
        server.finds(&[]);
        server.append(entries(term(of), at + 1..=at + 3));
        server.finds(&entries(term(of), at + 1..=at + 3));
        assert_eq!(server.reader().entries(index(4), index(99), u64::MAX), Ok(None));
    }
}

pub(super) fn compaction(mut server: Server) {
    server.identify();
    let hard_state = HardState { term: term(1), voted_for: Some(ServerId(1)) };
    server.write(WriteBatch {
        hard_state: Some(hard_state),
        configuration: Some(configuration(1)),
        abstention: Some(Some(index(7))),
        ..WriteBatch::default()
    });
    for at in 1..=200 {
        server.append(entries(term(1), [at]));
        if at % 50 == 0 {
            server.snapshot(id(term(1), index(at - 10)), b"so far");
            server.storage().compact(index(at - 10)).expect("compacts");
            let kept = server.reader().entries(index(at - 9), index(at), u64::MAX);
            assert_eq!(kept, Ok(Some(entries(term(1), at - 9..=at))));
            for gone in [1, at - 10] {
                let read = server.reader().entries(index(gone), index(gone), u64::MAX).expect("reads");
                assert!(read.is_none() || read == Some(entries(term(1), [gone])), "{read:?}");
            }
            server.finds(&entries(term(1), at - 9..=at));
        }
    }
    assert_eq!(server.recovered.identity, Some(identity()));
    assert_eq!(server.recovered.hard_state, hard_state);
    assert_eq!(server.recovered.configuration, Some(configuration(1)));
    assert_eq!(server.recovered.abstention, Some(index(7)));
    server.append(entries(term(2), 201..=201));
    server.finds(&[entries(term(1), 191..=200), entries(term(2), 201..=201)].concat());
}

pub(super) fn compaction_without_snapshot(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=50));
    server.append(entries(term(1), 51..=90));
    server.storage().compact(index(60)).expect("compacts");
    server.finds(&entries(term(1), 1..=90));
    server.snapshot(id(term(1), index(20)), b"20");
    server.storage().compact(index(60)).expect("compacts");
    server.finds(&entries(term(1), 21..=90));
}
