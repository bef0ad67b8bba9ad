//! Values of options, as people write them.

use std::time::Duration;

/// `127.0.0.1:8701`, `[::1]:8701`, `server-1.example.org:8701`.
pub(super) fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.map(str::parse::<u16>) {
        Some(Ok(_)) => Ok(text.into()),
        _ => Err(format!("`{text}` is not an address such as 127.0.0.1:8701")),
    }
}

/// `50ms`, `5s`, `2m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 =
        text[..digits].parse().map_err(|_| format!("`{text}` is not a duration such as 50ms or 5s"))?;
    let milliseconds = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("`{text}` needs a unit: ms, s or m")),
    };
    Ok(Duration::from_millis(number.saturating_mul(milliseconds)))
}

/// `300ms..600ms`.
pub(super) fn range(text: &str) -> Result<(Duration, Duration), String> {
    let (shortest, longest) =
        text.split_once("..").ok_or_else(|| format!("`{text}` is not a range such as 300ms..600ms"))?;
    let (shortest, longest) = (duration(shortest)?, duration(longest)?);
    if shortest < longest { Ok((shortest, longest)) } else { Err(format!("`{text}` is an empty range")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "ms", "-5s", "5h", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_have_a_port() {
        for right in ["127.0.0.1:8701", "[::1]:8701", "server-1.example.org:8701", "127.0.0.1:0"] {
            assert_eq!(address(right), Ok(right.into()));
        }
        for wrong in ["", "127.0.0.1", ":8701", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:http"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_are_not_empty() {
        assert_eq!(range("300ms..1s"), Ok((Duration::from_millis(300), Duration::from_secs(1))));
        for wrong in ["300ms", "1s..300ms", "1s..1s", "300..600"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}
