package e2e

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

// TestConformance runs the Gateway API conformance suite against the current cluster. `cargo xtask conformance`
// compiles and calls it; the flags are the suite's own.
func TestConformance(t *testing.T) { conformance.RunConformance(t) }
