//! Payment card numbers: digits of an issuer (ISO/IEC 7812), in that issuer's lengths, with a right
//! check digit (Luhn), alone or in groups as cards print them.
//!
//! A number is taken for a card's only where no letter, digit, `_` or decimal point touches it. About
//! one in ten other numbers with an issuer's digits and length has a right check digit by chance;
//! they are masked too.

use super::{By, Hit, Hits, SecretPattern};

/// The shortest number that is a card's, in characters.
const MIN_DIGITS: usize = 13;
const MAX_DIGITS: usize = 19;
/// A look at every so many bytes meets every number of [`MIN_DIGITS`] digits.
const STRIDE: usize = 12;
/// Digits that a mask leaves.
const SHOWN_DIGITS: usize = 4;

fn part(byte: u8) -> bool {
    byte.is_ascii_digit() || is_joint(byte)
}

fn is_joint(byte: u8) -> bool {
    matches!(byte, b' ' | b'-')
}

/// Adds all card numbers of a text.
pub(super) fn find(text: &[u8], hits: &mut Hits) {
    let mut at = STRIDE - 1;
    while at < text.len() {
        if !part(text[at]) {
            at += STRIDE;
            continue;
        }
        // All digits, blanks and hyphens around this one.
        let from = text[..at].iter().rposition(|byte| !part(*byte)).map_or(0, |at| at + 1);
        let to = text[at..].iter().position(|byte| !part(*byte)).map_or(text.len(), |n| at + n);
        if to - from >= MIN_DIGITS {
            run(text, from, to, hits);
        }
        at = to + STRIDE;
    }
}

/// Looks at every number of a run of digits and joints.
fn run(text: &[u8], from: usize, to: usize, hits: &mut Hits) {
    let mut at = from;
    while at < to {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        match card(&text[..to], at).filter(|end| is_alone(text, at, *end)) {
            Some(end) => {
                hits.push(Hit { from: at, to: end, by: By::Pattern(SecretPattern::CardNumbers) });
                at = end;
            }
            // On to what stands behind these digits.
            None => {
                let digits = text[at..to].iter().take_while(|byte| byte.is_ascii_digit());
                at += digits.count();
            }
        }
    }
}

/// The end of the card number that begins here.
fn card(text: &[u8], at: usize) -> Option<usize> {
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits >= MIN_DIGITS {
        return is_card(&text[at..at + digits]).then_some(at + digits);
    }
    // 4-4-4-4 (-3), 4-6-5 or 4-6-4, with one joint between any two.
    if digits != 4 {
        return None;
    }
    let joint = *text.get(at + 4).filter(|byte| is_joint(**byte))?;
    let groups: &[&[usize]] = &[&[4, 4, 4, 4, 3], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4]];
    groups.iter().find_map(|groups| grouped(text, at, joint, groups))
}

fn grouped(text: &[u8], at: usize, joint: u8, groups: &[usize]) -> Option<usize> {
    let mut digits = Vec::with_capacity(MAX_DIGITS);
    let mut end = at;
    for (number, length) in groups.iter().enumerate() {
        if number > 0 {
            (text.get(end) == Some(&joint)).then_some(())?;
            end += 1;
        }
        let group = text.get(end..end + length)?;
        group.iter().all(u8::is_ascii_digit).then_some(())?;
        digits.extend_from_slice(group);
        end += length;
    }
    let ends = !text.get(end).is_some_and(u8::is_ascii_digit);
    (ends && is_card(&digits)).then_some(end)
}

/// Does nothing touch the number that makes it a part of something else?
fn is_alone(text: &[u8], from: usize, to: usize) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
    let digit = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(u8::is_ascii_digit);
    let before = from.checked_sub(1).map(|at| text[at]);
    let after = text.get(to).copied();
    let broken = |byte: Option<u8>, next: Option<usize>| match byte {
        Some(b'.' | b'-') => digit(next),
        Some(byte) => word(byte),
        None => false,
    };
    !broken(before, from.checked_sub(2)) && !broken(after, Some(to + 1))
}

fn is_card(digits: &[u8]) -> bool {
    (MIN_DIGITS..=MAX_DIGITS).contains(&digits.len())
        && issuer(digits).contains(&digits.len())
        && luhn(digits)
        && digits.iter().any(|digit| *digit != digits[0])
}

/// The lengths of the issuer that these digits name.
fn issuer(digits: &[u8]) -> &'static [usize] {
    let first = |count: usize| {
        digits[..count].iter().fold(0_u32, |all, digit| all * 10 + u32::from(digit - b'0'))
    };
    match (first(2), first(3), first(4)) {
        (40..=49, ..) => &[13, 16, 19],
        (51..=55, ..) | (_, _, 2221..=2720) => &[16],
        (34 | 37, ..) => &[15],
        (36 | 38 | 39, ..) | (_, 300..=305 | 309, _) => &[14, 16, 17, 18, 19],
        (65, ..) | (_, 644..=649, _) | (_, _, 6011) => &[16, 17, 18, 19],
        (_, _, 3528..=3589) => &[16, 17, 18, 19],
        (62 | 81, ..) => &[16, 17, 18, 19],
        (_, _, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763) => &[13, 15, 16, 18, 19],
        (_, _, 2200..=2204) => &[16],
        _ => &[],
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let value = u32::from(digit - b'0') << (place % 2);
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Stars for all digits but the last four; joints stay.
pub(super) fn mask(number: &[u8], out: &mut Vec<u8>) {
    let digits = number.iter().filter(|byte| byte.is_ascii_digit()).count();
    let mut seen = 0;
    for byte in number {
        let is_digit = byte.is_ascii_digit();
        seen += usize::from(is_digit);
        out.push(if is_digit && seen + SHOWN_DIGITS <= digits { b'*' } else { *byte });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut hits = Hits::new();
        find(text.as_bytes(), &mut hits);
        hits.iter().map(|hit| &text[hit.from..hit.to]).collect()
    }

    #[test]
    fn every_issuers_test_number_is_found_wherever_it_stands() {
        for number in [
            "4111111111111111",
            "4222222222222",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "30569309025904",
            "6011111111111117",
            "3530111333300000",
            "6205500000000000004",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "3782-822463-10005",
        ] {
            for offset in 0..30 {
                let text = format!("{}card={number}, ok", "x".repeat(offset));
                assert_eq!(found(&text), [number], "{text}");
                let bare = format!("{}{number}", ".".repeat(offset));
                assert_eq!(found(&bare), [number], "{bare}");
            }
        }
        assert_eq!(found("4111111111111111 5555555555554444").len(), 2);
        assert_eq!(found("1 4111111111111111 2 5555-5555-5555-4444 3").len(), 2);
    }

    #[test]
    fn what_only_looks_like_a_card_number_stays() {
        for text in [
            "4111111111111112",
            "1704492707193421",
            "id=a4111111111111111",
            "4111111111111111f",
            "0.4111111111111111",
            "41111111111111111",
            "4111-1111-1111-1111-1111",
            "0000000000000000",
            "2024-03-01 12:00:00 4111 1111",
            "4111_1111_1111_1111",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_mask_leaves_the_last_four_digits_and_the_joints() {
        for (number, masked) in [
            ("4111111111111111", "************1111"),
            ("4111-1111-1111-1111", "****-****-****-1111"),
            ("378282246310005", "***********0005"),
        ] {
            let mut out = Vec::new();
            mask(number.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), masked);
        }
    }
}
