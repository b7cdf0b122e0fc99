package chaos_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/chainstream/chainstream/internal/failpoint"
)

// TestPlain shows that the program as it is shipped has no failpoint: neither
// the names of points nor what reads the environment for them.
func TestPlain(t *testing.T) {
	plain, err := os.ReadFile(plainProgram)
	if err != nil {
		t.Fatal(err)
	}
	armed, err := os.ReadFile(failpointProgram)
	if err != nil {
		t.Fatal(err)
	}
	marks := []string{failpoint.EnvActions, failpoint.EnvVisits}
	for _, point := range failpoint.Points() {
		marks = append(marks, point.String())
	}
	for _, mark := range marks {
		if bytes.Contains(plain, []byte(mark)) {
			t.Errorf("the program holds %q", mark)
		}
		if !bytes.Contains(armed, []byte(mark)) {
			t.Errorf("the program with failpoints does not hold %q", mark)
		}
	}
	if failpoint.Enabled {
		t.Error("the tests were built with failpoints")
	}
}
