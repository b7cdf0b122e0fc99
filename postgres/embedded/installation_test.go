package embedded_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/postgres/embedded"
)

func TestFind(t *testing.T) {
	t.Parallel()
	found, err := embedded.Find()
	if err != nil {
		t.Fatal(err)
	}
	if found.Major < 15 || found.Version == "" || !found.HasVector {
		t.Errorf("found %+v", found)
	}
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(found.BinDir, program)); err != nil {
			t.Error(err)
		}
	}
}

func TestInstallCommand(t *testing.T) {
	t.Parallel()
	const script = "make setup (in a clone of the Chainstream repository)"
	for name, c := range map[string]struct {
		goos, release string
		major         int
		want          string
	}{
		"Debian 12 has no package of pgvector": {"linux", "ID=debian\nVERSION_ID=\"12\"\n", 0, script},
		"Debian 13":                            {"linux", "ID=debian\nVERSION_ID=\"13\"\n", 0, "sudo apt-get install -y postgresql-17 postgresql-17-pgvector"},
		"Ubuntu 24.04":                         {"linux", "VERSION_ID='24.04'\nID=ubuntu", 16, "sudo apt-get install -y postgresql-16 postgresql-16-pgvector"},
		"a major the distribution lacks":       {"linux", "ID=ubuntu\nVERSION_ID=\"24.04\"\n", 17, script},
		"unknown Linux":                        {"linux", "", 0, script},
		"macOS":                                {"darwin", "", 0, "brew install postgresql@17 pgvector"},
		"macOS, newer server":                  {"darwin", "", 18, "brew install postgresql@18 pgvector"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, embedded.InstallCommandFor(c.goos, c.release, c.major)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBuffersFollowTheMemory(t *testing.T) {
	t.Parallel()
	for memory, want := range map[uint64]string{
		0:         "128MB", // unknown
		256 << 20: "128MB",
		2 << 30:   "512MB",
		64 << 30:  "4096MB",
	} {
		if got := embedded.BuiltinSettings(memory)["shared_buffers"]; got != want {
			t.Errorf("with %d bytes: shared_buffers = %s, want %s", memory, got, want)
		}
	}
}
