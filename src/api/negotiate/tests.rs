use super::*;

fn asked(accepts: &str, offer: Offer) -> Result<(Format, Shape), u16> {
    let (parts, ()) = http::Request::get("/")
        .header(ACCEPT, accepts)
        .body(())
        .unwrap()
        .into_parts();
    routed(&parts.headers, offer)
        .and_then(|()| accept(&parts, offer))
        .map(|it| (it.format, it.shape))
        .map_err(|status| status.code)
}

#[test]
fn a_clause_is_judged_by_its_parameters() {
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let table = Shape::Table { beta: false };
    let (json, yaml) = (Format::Json, Format::Yaml);
    for (accepts, offer, told) in [
        (TABLE, Offer::Objects, Ok((json, table))),
        // Objects that are never stored have no tables.
        (TABLE, Offer::Answers, Err(406)),
        (
            PARTIAL,
            Offer::Answers,
            Ok((json, Shape::Partial { beta: false })),
        ),
        ("*/*", Offer::Answers, Ok((json, Shape::Object))),
        // A quality of 0 rejects nothing, and the last clause is used if nothing else is.
        (
            "application/json;q=0",
            Offer::Objects,
            Ok((json, Shape::Object)),
        ),
        (
            "application/json;q=0,application/yaml",
            Offer::Objects,
            Ok((yaml, Shape::Object)),
        ),
        (
            "*/*,application/yaml;q=0.1",
            Offer::Objects,
            Ok((yaml, Shape::Object)),
        ),
        // Parameters without a value are ignored.
        (
            "application/json;as=;v=;g=",
            Offer::Objects,
            Ok((json, Shape::Object)),
        ),
        (
            "application/json;v=v1;g=meta.k8s.io",
            Offer::Objects,
            Err(406),
        ),
        ("application/yaml;stream=watch", Offer::Lists, Err(406)),
        // The router knows only one wildcard.
        ("application/*", Offer::Objects, Err(406)),
        ("application/*", Offer::Unrouted, Ok((json, Shape::Object))),
        (PROTOBUF, Offer::Custom, Err(406)),
    ] {
        assert_eq!(asked(accepts, offer), told, "{accepts} {offer:?}");
    }
}

#[test]
fn json_is_indented_for_people() {
    for (path, agent, accepts, told) in [
        ("/", "ask/1", "", false),
        ("/", "curl/8.0", "", true),
        ("/", "Mozilla/5.0 (X11)", "*/*", true),
        ("/", "Wget", "application/yaml", false),
        ("/?pretty=true", "ask/1", "", true),
        ("/?pretty=1", "ask/1", "text/html", true),
        ("/?pretty=false", "curl/8.0", "", false),
        ("/?pretty=maybe", "curl/8.0", "", false),
        ("/?pretty=", "curl/8.0", "", true),
        ("/?pretty=false", "ask/1", "application/json;pretty=1", true),
    ] {
        let request = http::Request::get(path)
            .header(USER_AGENT, agent)
            .header(ACCEPT, accepts);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let indented = accept_status(&parts).indented;
        assert_eq!(indented, told, "{path} {agent} {accepts}");
    }
}

#[test]
fn the_media_type_of_a_body_is_well_formed() {
    for (text, format) in [
        ("", Some(Format::Json)),
        ("Application/JSON; charset=utf-8", Some(Format::Json)),
        ("application/json;", Some(Format::Json)),
        ("application/yaml; a=\"b;\\\"c\"", Some(Format::Yaml)),
        ("application/json,application/yaml", None),
        ("application/json;a", None),
        ("application/json;a=", None),
        ("application/json;a=b;A=c", None),
        ("application/json/x", None),
        ("text/plain", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, text.parse().unwrap());
        assert_eq!(body_format(&headers).ok(), format, "{text:?}");
    }
}

#[test]
fn very_many_clauses_and_parameters_are_read() {
    let some = ["*/b,".repeat(51_000), "a/*,".repeat(51_000)].concat();
    let json = Ok((Format::Json, Shape::Object));
    assert_eq!(
        asked(&format!("{some}application/json"), Offer::Unrouted),
        json
    );

    let parameters: String = (0..45_000).map(|n| format!(";k{n}=1")).collect();
    let media = format!("application/json{parameters}");
    assert_eq!(media_type(&media).as_deref(), Some("application/json"));
    assert_eq!(media_type(&format!("{media};k1=2")), None);
}
