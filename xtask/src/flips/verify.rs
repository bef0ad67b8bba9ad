//! What `atomix log verify` says of a stopped directory: it names each file in which a byte that means anything was flipped, also those that
//! a start has no need of, and no other.

use std::path::{Path, PathBuf};

use atomix_storage_file::inspect::{Inspection, Report, Verdict};

use super::layout::{Image, Layout};

/// Looks at a directory in which a bit of that file was flipped, if any.
pub(super) async fn look(directory: &Path, layout: &Layout, flipped: Option<&str>) -> Result<(), String> {
    let report = inspect(directory.to_owned()).await?;
    let before = layout.known_damage.iter().chain(&layout.quiet_damage);
    let mut wanted: Vec<&str> = before.map(String::as_str).collect();
    wanted.extend(flipped);
    let named = |file: &str| report.findings.iter().any(|finding| finding.file.as_deref() == Some(file));
    if let Some(file) = wanted.iter().find(|file| !named(file)) {
        return Err(format!("{file} is damaged, and it says {:?}", in_words(&report)));
    }
    if wanted.is_empty() && !report.findings.is_empty() {
        return Err(format!("nothing is damaged, and it says {:?}", in_words(&report)));
    }
    Ok(())
}

/// Looks at a directory of which both manifests are damaged.
pub(super) async fn look_at_lost(directory: &Path) -> Result<(), String> {
    let report = inspect(directory.to_owned()).await?;
    if report.verdict == Verdict::Lost { Ok(()) } else { Err(format!("it says {:?}", in_words(&report))) }
}

fn in_words(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

/// What is found in a directory, which is left as it is.
async fn inspect(directory: PathBuf) -> Result<Report, String> {
    let inspecting = tokio::task::spawn_blocking(move || {
        let before = Image::of(&directory).map_err(|error| error.to_string())?;
        let inspection = Inspection::of_directory(&directory);
        let report = inspection.and_then(|mut inspection| inspection.report());
        let report = report.map_err(|error| error.to_string())?;
        let after = Image::of(&directory).map_err(|error| error.to_string())?;
        if before.files == after.files { Ok(report) } else { Err("it changed something".to_owned()) }
    });
    inspecting.await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::written;
    use super::super::round::turn;
    use super::*;

    #[tokio::test]
    async fn every_part_that_means_something_is_named_and_no_other() {
        let (image, folder) = (written(), tempfile::tempdir().expect("a directory"));
        let layout = Layout::of(&image).expect("whole");
        for (number, part) in layout.parts.iter().enumerate() {
            let directory = folder.path().join(number.to_string());
            image.write(&directory).expect("written");
            look(&directory, &layout, None).await.expect("nothing is damaged");
            let at = part.bytes.start + part.bytes.len() / 2;
            turn(&directory.join(&part.file), at, 2).expect("flipped");
            let meant = part.class.means_something();
            let named = look(&directory, &layout, Some(&part.file)).await;
            let quiet = look(&directory, &layout, None).await;
            assert_eq!((named.is_ok(), quiet.is_ok()), (meant, !meant), "{part:?}: {named:?}, {quiet:?}");
        }
    }
}
