use std::io::Read;

use super::*;
use v1::compressor::Kind;

fn compressors(kinds: &[Kind]) -> Compressors {
    let config: Vec<_> = kinds
        .iter()
        .map(|kind| v1::Compressor {
            kind: (*kind).into(),
            min_content_length: 0,
        })
        .collect();
    Compressors::compile(&config).unwrap()
}

#[test]
fn the_client_chooses() {
    let all = compressors(&[Kind::Brotli, Kind::Gzip, Kind::Zstd]);
    for (accept, expected) in [
        ("", None),
        ("gzip", Some(Coding::Gzip)),
        ("GZIP, br", Some(Coding::Brotli)),
        ("gzip;q=1, br;q=0.9", Some(Coding::Gzip)),
        ("gzip; q=0.5, zstd; q=0.501", Some(Coding::Zstd)),
        ("*", Some(Coding::Brotli)),
        ("*, br;q=0", Some(Coding::Gzip)),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("gzip;q=x, br;q=2, zstd;q=-1", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
        ("deflate, compress", None),
        ("gzip2, xgzip", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        let chosen = all.choose(&headers).0.map(|(coding, _)| coding);
        assert_eq!(chosen, expected, "{accept}");
    }
    assert_eq!(all.choose(&HeaderMap::new()).0, None);
}

fn response(status: u16, headers: &[(&str, &str)]) -> response::Parts {
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap().into_parts().0
}

#[test]
fn only_what_is_worth_it() {
    let html = ("content-type", "text/html; charset=utf-8");
    for (status, headers, expected) in [
        (200, vec![html], true),
        (200, vec![html, ("content-length", "30")], true),
        (200, vec![html, ("content-length", "29")], false),
        (404, vec![html], true),
        (206, vec![html], false),
        (204, vec![html], false),
        (304, vec![html], false),
        (200, vec![("content-type", "image/png")], false),
        (200, vec![], false),
        (200, vec![html, ("content-encoding", "br")], false),
        (200, vec![html, ("cache-control", "private, No-Transform")], false),
    ] {
        let mut response = response(status, &headers);
        let choice = Choice(Some((Coding::Gzip, 30)));
        assert_eq!(
            choice.apply(&mut response).is_some(),
            expected,
            "{status} {headers:?}"
        );
        assert_eq!(
            response.headers.contains_key(CONTENT_ENCODING) && expected,
            expected
        );
    }
}

#[test]
fn headers_are_told() {
    let choice = Choice(Some((Coding::Gzip, 30)));
    let own = [
        ("content-type", "text/css"),
        ("content-length", "1000"),
        ("etag", "\"strong\""),
        ("vary", "Origin"),
        ("accept-ranges", "bytes"),
    ];
    let mut strong = response(200, &own);
    assert!(choice.apply(&mut strong).is_some());
    for gone in ["content-length", "etag", "accept-ranges"] {
        assert!(!strong.headers.contains_key(gone), "{gone}");
    }
    let vary: Vec<_> = strong.headers.get_all(VARY).iter().collect();
    assert_eq!(vary, ["Origin", "Accept-Encoding"]);
    let mut weak = response(
        200,
        &[("content-type", "text/css"), ("etag", "W/\"1\""), ("vary", "*")],
    );
    assert!(choice.apply(&mut weak).is_some());
    assert_eq!(
        (&weak.headers[ETAG], &weak.headers[VARY]),
        (&"W/\"1\"".parse().unwrap(), &"*".parse().unwrap())
    );
    // Caches have to know even where nothing is compressed.
    let mut plain = response(200, &[("content-type", "text/css")]);
    assert!(Choice(None).apply(&mut plain).is_none());
    assert_eq!(plain.headers[VARY], "Accept-Encoding");
}

#[test]
fn bodies_come_back() {
    let text: Vec<u8> = (0..200_000)
        .map(|i: usize| b"sluice "[i % 7] ^ b"0123456789"[i / 5000 % 10])
        .collect();
    for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
        let mut encoder = Encoder::new(coding).unwrap();
        let mut out = Vec::new();
        for (i, piece) in text.chunks(777).enumerate() {
            out.extend_from_slice(&encoder.push(piece).unwrap());
            if i % 50 == 0 {
                let flushed = encoder.flush().unwrap();
                assert!(!flushed.is_empty(), "{coding:?} holds back");
                out.extend_from_slice(&flushed);
                assert!(encoder.flush().unwrap().is_empty());
            }
        }
        out.extend_from_slice(&encoder.finish().unwrap());
        let mut back = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(&*out).read_to_end(&mut back),
            Coding::Brotli => brotli::Decompressor::new(&*out, 4096).read_to_end(&mut back),
            Coding::Zstd => zstd::stream::read::Decoder::new(&*out)
                .unwrap()
                .read_to_end(&mut back),
        }
        .unwrap();
        assert!(back == text, "{coding:?}");
        assert!(out.len() < text.len() / 4, "{coding:?}: {}", out.len());
    }
}
