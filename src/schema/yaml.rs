//! YAML 1.1 to values and back, as `sigs.k8s.io/yaml` reads and writes it.
