//! Where addresses are: looked up in what the agent has been given (a MaxMind DB), since this crate
//! reads no files.

use std::fmt::Debug;
use std::net::IpAddr;

use custody_event::{Detail, Draft, Field};

/// What is known of an address's place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    /// ISO 3166-1 code of the country: `DE`.
    pub country: Option<String>,
    /// The region's name.
    pub region: Option<String>,
    /// The city's name.
    pub city: Option<String>,
    /// Number of the autonomous system.
    pub asn: Option<i64>,
    /// Whose it is.
    pub organisation: Option<String>,
}

/// Knows where addresses are.
pub trait Atlas: Debug + Send + Sync {
    /// What is known of this address.
    fn find(&self, address: IpAddr) -> Option<Location>;
}

/// Fills `source.location` (and of the network `details.source_asn`, `details.source_organisation`)
/// from `source.ip`, where the record itself says nothing of it.
pub(crate) fn locate(atlas: &dyn Atlas, draft: &mut Draft<'_>) {
    let fields = [Field::LocationCountry, Field::LocationRegion, Field::LocationCity];
    if fields.iter().any(|field| draft.has(*field)) {
        return;
    }
    let address = draft.text_of(Field::SourceIp).and_then(|text| text.parse().ok());
    let Some(found) = address.and_then(|address| atlas.find(address)) else { return };
    for (field, text) in fields.into_iter().zip([found.country, found.region, found.city]) {
        draft.text(field, text.unwrap_or_default());
    }
    if let Some(asn) = found.asn {
        draft.detail("source_asn", Detail::Int(asn));
    }
    if let Some(name) = found.organisation.filter(|name| !name.is_empty()) {
        draft.detail("source_organisation", Detail::Text(name.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct One;

    impl Atlas for One {
        fn find(&self, address: IpAddr) -> Option<Location> {
            (address.to_string() == "192.0.2.1").then(|| Location {
                country: Some("DE".into()),
                city: Some("Köln".into()),
                asn: Some(64_500),
                ..Location::default()
            })
        }
    }

    fn located(fill: impl FnOnce(&mut Draft<'_>)) -> String {
        let mut draft = Draft::new();
        fill(&mut draft);
        locate(&One, &mut draft);
        let mut out = Vec::new();
        draft.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_address_is_placed_unless_the_record_says_where_it_is() {
        let found = located(|draft| draft.text(Field::SourceIp, "192.0.2.1"));
        assert!(found.contains(r#""location":{"city":"Köln","country":"DE"}"#), "{found}");
        assert!(found.contains(r#""source_asn":64500"#));
        let said = located(|draft| {
            draft.text(Field::SourceIp, "192.0.2.1");
            draft.text(Field::LocationCountry, "FR");
        });
        assert!(said.contains(r#""location":{"country":"FR"}"#) && !said.contains("asn"));
        assert!(!located(|draft| draft.text(Field::SourceIp, "192.0.2.2")).contains("location"));
    }
}
