//! Objects from YAML.
