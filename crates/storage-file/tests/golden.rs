//! The bytes of every kind of file, as this version writes them. They never change: a change of the format is a new version.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crash_disk;

use std::fmt::Write;

use crash_disk::workload::{
    Model, Step, abstain, append, configure, entry, id, identify, index, replace, run, term, vote,
};
use crash_disk::{CrashDisk, Image, open};

const SEGMENT: u64 = 1_024;
const FILES: [(&str, &str); 7] = [
    ("log-0000000000000001.seg", include_str!("golden/log-1.hex")),
    ("log-0000000000000002.seg", include_str!("golden/log-2.hex")),
    ("manifest-0", include_str!("golden/manifest.hex")),
    ("manifest-1", include_str!("golden/manifest.hex")),
    ("mark", include_str!("golden/mark.hex")),
    ("reserve.seg", ""),
    ("snapshot-0000000000000002-0000000000000001.snap", include_str!("golden/snapshot.hex")),
];

fn steps() -> Vec<Step> {
    vec![
        identify(),
        configure(index(0)),
        abstain(Some(index(4))),
        vote(term(1)),
        append(vec![entry(term(1), index(1), 0), entry(term(1), index(2), 5)]),
        append(vec![entry(term(1), index(3), 600)]),
        replace(id(term(1), index(2)), vec![entry(term(2), index(3), 20)]),
        Step::Publish(id(term(1), index(2))),
    ]
}

/// 32 bytes a line, the zeros at the end left out.
fn hex(bytes: &[u8]) -> String {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut text = String::new();
    for line in bytes[..used].chunks(32) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn what_is_written() {
    let disk = CrashDisk::new(Image::default());
    let mut opened = open(&disk, SEGMENT).unwrap();
    steps().iter().for_each(|step| run(&mut opened.storage, step).unwrap());
    let image = disk.image();
    assert_eq!(image.names(), FILES.map(|(name, _)| name));
    for (name, golden) in FILES {
        assert_eq!(hex(image.file(name)), golden, "{name}");
    }
}

#[test]
fn what_is_read() {
    let mut image = Image::default();
    for (name, golden) in FILES {
        let mut file = bytes(golden);
        if !name.ends_with(".snap") {
            file.resize(SEGMENT as usize, 0);
        }
        image.add(name, file);
    }
    let mut model = Model::default();
    steps().iter().for_each(|step| model.apply(step));
    assert!(model.is(&open(&CrashDisk::new(image), SEGMENT).unwrap()));
}
