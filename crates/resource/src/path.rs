//! Where a resource lives (M1).

use atomix_protocol::limits;

/// Whether a text names a place for a resource: `/` and a name, once or more, at most
/// [`PATH_BYTES`](limits::PATH_BYTES) long in all.
///
/// ```
/// assert!(atomix_resource::is_valid_path("/jobs/nightly"));
/// assert!(!atomix_resource::is_valid_path("jobs"));
/// assert!(!atomix_resource::is_valid_path("/jobs//nightly"));
/// ```
#[must_use]
pub fn is_valid_path(path: &str) -> bool {
    let Some(names) = path.strip_prefix('/') else { return false };
    path.len() <= limits::PATH_BYTES && names.split('/').all(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let longest = format!("/{}", "x".repeat(limits::PATH_BYTES - 1));
        let too_long = format!("{longest}x");
        let table = [
            ("/a", true),
            ("/a/b", true),
            ("/with space/äöü", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("/", false),
            ("a", false),
            ("a/b", false),
            ("/a/", false),
            ("//a", false),
            ("/a//b", false),
        ];
        for (path, valid) in table {
            assert_eq!(is_valid_path(path), valid, "{path:?}");
        }
    }
}
