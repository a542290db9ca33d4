use std::{collections::HashSet, time::SystemTime};

use rustls::pki_types::CertificateDer;
use yasna::{BERReader, Tag};

use super::*;
use crate::testing::Side;

fn bundle() -> (Bundle, Ca, Roots) {
    let ca = Ca::new(SystemTime::now()).unwrap();
    let roots = [Side::new(), Side::new()]
        .iter()
        .fold(Roots::none(), |all, side| all.with_pem(side.roots.pem().as_bytes()).unwrap());
    (Bundle::new(&roots, &ca), ca, roots)
}

#[test]
fn ours_stands_beside_the_machines() {
    let (bundle, ca, roots) = bundle();
    assert_eq!(bundle.certificate(), ca.certificate_pem());
    let all = Roots::none().with_pem(bundle.pem().as_bytes()).unwrap();
    assert_eq!(all.certificates()[0], *ca.certificate_der());
    assert_eq!(all.certificates()[1..], *roots.certificates());
}

/// ContentInfo of plain data, and what `inner` reads of its bytes.
fn content<T>(r: BERReader<'_, '_>, inner: impl FnOnce(Vec<u8>) -> T) -> yasna::ASN1Result<T> {
    r.read_sequence(|r| {
        r.next().read_oid()?;
        r.next().read_tagged(Tag::context(0), |r| r.read_bytes()).map(inner)
    })
}

#[test]
fn the_truststore_holds_each_with_an_alias() {
    let (bundle, ca, roots) = bundle();
    let safe = yasna::parse_der(bundle.truststore(), |r| {
        r.read_sequence(|r| {
            assert_eq!(r.next().read_u8()?, 3);
            content(r.next(), |bytes| bytes)
        })
    });
    let bags = yasna::parse_der(&safe.unwrap(), |r| {
        let mut all = Vec::new();
        r.read_sequence_of(|r| content(r, |bytes| all.push(bytes)))?;
        Ok(all.remove(0))
    });
    let mut found: Vec<(String, CertificateDer<'static>)> = Vec::new();
    yasna::parse_der(&bags.unwrap(), |r| {
        r.read_sequence_of(|r| {
            r.read_sequence(|r| {
                r.next().read_oid()?;
                let der = r.next().read_tagged(Tag::context(0), |r| {
                    r.read_sequence(|r| {
                        r.next().read_oid()?;
                        r.next().read_tagged(Tag::context(0), |r| r.read_bytes())
                    })
                })?;
                let mut alias = String::new();
                r.next().read_set_of(|r| {
                    r.read_sequence(|r| {
                        let name = r.next().read_oid()?.to_string();
                        r.next().read_set_of(|r| {
                            if name.ends_with(".9.20") {
                                alias = r.read_bmp_string()?;
                            } else {
                                r.read_oid()?;
                            }
                            Ok(())
                        })
                    })
                })?;
                found.push((alias, der.into()));
                Ok(())
            })
        })
    })
    .unwrap();
    let aliases: Vec<_> = found.iter().map(|(alias, _)| alias.as_str()).collect();
    assert_eq!(aliases, ["stockade", "root-1", "root-2"]);
    let ders: Vec<_> = found.into_iter().map(|(_, der)| der).collect();
    assert_eq!(ders[0], *ca.certificate_der());
    assert_eq!(ders[1..], *roots.certificates());
}

#[test]
fn variables_name_the_files_that_are_there() {
    let (bundle, ..) = bundle();
    let files: HashSet<_> = bundle.files("/d").into_iter().map(|f| format!("/d/{}", f.name)).collect();
    assert_eq!(files.len(), 5);
    let variables = Bundle::variables("/d");
    assert_eq!(variables.iter().map(|v| v.name).collect::<HashSet<_>>().len(), variables.len());
    for variable in &variables {
        // PHP is told the directory, and reads what ends like its settings.
        let named = files.iter().filter(|f| variable.value.contains(f.as_str())).count();
        assert_eq!(named, usize::from(variable.name != "PHP_INI_SCAN_DIR"), "{variable:?}");
        assert_eq!(variable.joins.is_some(), !files.contains(&variable.value), "{variable:?}");
    }
    let php = b"curl.cainfo = /d/bundle.pem\nopenssl.cafile = /d/bundle.pem\n";
    assert!(bundle.files("/d").iter().any(|f| f.name.ends_with(".ini") && f.bytes == php));
    assert!(bundle.files("/d").iter().any(|f| f.bytes == b"ca_certificate = /d/bundle.pem\n"));
}
