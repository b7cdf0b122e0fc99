package replica_test

import (
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
