package e2e

import (
	"fmt"
	"testing"

	"sigs.k8s.io/gateway-api/conformance/tests"
)

// TestList prints the suite's tests and the features that each needs. `cargo xtask conformance --list` calls it; it
// needs no cluster.
func TestList(t *testing.T) {
	if len(tests.ConformanceTests) == 0 {
		t.Fatal("the suite has no tests")
	}
	for _, test := range tests.ConformanceTests {
		fmt.Println(test.ShortName, test.Features)
	}
}
