pub fn canonical(t: &str) -> Result<String, String> {
    Ok(t.into())
}
