use super::*;

#[test]
fn a_request_has_the_time_that_it_says_and_no_more_than_a_minute() {
    let limited = |path: &str, query: &str| {
        let query = Query::parse(query);
        limit(&Info::of(&Method::GET, path, &query), &query)
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (path, query, expected) in [
        ("/api/v1/pods", "", seconds(60)),
        ("/api/v1/pods", "timeout=", seconds(60)),
        ("/api/v1/pods", "timeout=0", seconds(60)),
        ("/api/v1/pods", "timeout=-5s", seconds(60)),
        ("/api/v1/pods", "timeout=1h", seconds(60)),
        ("/api/v1/pods", "timeout=5s&timeout=1s", seconds(5)),
        ("/api/v1/pods", "timeout=1ns", Some(Duration::from_nanos(1))),
        ("/version", "timeout=1m0s", seconds(60)),
        ("/api/v1/pods", "timeout=5s&watch=1", None),
        ("/api/v1/pods", "timeout=x&watch=1", None),
        ("/api/v1/namespaces/n/pods/p/log", "timeout=5s", None),
    ] {
        assert_eq!(limited(path, query), Ok(expected), "{path}?{query}");
    }
    let refused = limited("/version", "timeout=5").unwrap_err();
    assert_eq!(refused.code, 400);
}
