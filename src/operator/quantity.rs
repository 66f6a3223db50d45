//! Amounts as Kubernetes writes them, as whole bytes.

/// `4Gi`, `500M`, `1.5Gi`, `1024`. `None` for what is no amount, or larger than any.
pub(crate) fn parse_quantity(text: &str) -> Option<u64> {
    let at = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    if number.is_empty() || number == "." || fraction.len() > 9 {
        return None;
    }
    let parts = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? };
    let rest = u128::from(fraction) * u128::from(factor) / u128::from(parts);
    whole.checked_mul(factor)?.checked_add(u64::try_from(rest).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, bytes) in [
            ("4Gi", Some(4 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("500M", Some(500_000_000)),
            (".5k", Some(500)),
            ("7", Some(7)),
            ("0", Some(0)),
            ("", None),
            (".", None),
            ("Gi", None),
            ("1m", None),
            ("-1", None),
            ("99999999999Ti", None),
        ] {
            assert_eq!(parse_quantity(text), bytes, "{text}");
        }
    }
}
