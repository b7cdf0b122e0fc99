package replica_test

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chainstream/chainstream/replica"
)

func TestMessages(t *testing.T) {
	t.Parallel()
	rising := func(from, step int64, n int) []int64 {
		ids := make([]int64, n)
		for i := range ids {
			ids[i] = from + int64(i)*step
		}
		return ids
	}
	all := replica.Hint{All: true}
	tests := []struct {
		name       string
		give, want replica.Hint
		text       string // when it is short
	}{
		{"nothing", replica.Hint{}, replica.Hint{}, "1 me"},
		{"queue", replica.Hint{Queue: true}, replica.Hint{Queue: true}, "1 me queue"},
		{"executions", replica.Hint{Grown: []int64{50, 41, 41, 36, 40}, Cancel: []int64{41}}, replica.Hint{Grown: []int64{36, 40, 41, 50}, Cancel: []int64{41}}, "1 me grown:10,4,1,9 cancel:15"},
		{"largest", replica.Hint{Grown: []int64{math.MaxInt64}}, replica.Hint{Grown: []int64{math.MaxInt64}}, ""},
		{"many neighbours", replica.Hint{Grown: rising(1e12, 1, 3500)}, replica.Hint{Grown: rising(1e12, 1, 3500)}, ""},
		{"far apart", replica.Hint{Grown: rising(1e12, 1e6, 1000)}, replica.Hint{Grown: rising(1e12, 1e6, 1000)}, ""},
		{"does not fit", replica.Hint{Grown: rising(1e12, 1e6, 3000), Queue: true}, all, "1 me all"},
		{"too many", replica.Hint{Cancel: rising(1, 1, 100000)}, all, "1 me all"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			message := replica.Encode("me", test.give)
			if test.text != "" && string(message) != test.text {
				t.Errorf("message %q, want %q", message, test.text)
			}
			if len(message) > replica.MessageBytes {
				t.Errorf("%d bytes", len(message))
			}
			sender, got, ok := replica.Decode(message)
			if !ok || sender != "me" {
				t.Fatalf("sender %q, ok %v", sender, ok)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	t.Parallel()
	for _, message := range []string{
		"", "1", "1 ", "2 me queue", "echo K7QX", "1 me grown:", "1 me grown", "1 me grown:0", "1 me grown:1,-1", "1 me grown:1,,2",
		"1 me grown:zzzzzzzzzzzzzzzz", "1 me grown:1y2p0ij32e8e7,1y2p0ij32e8e7", "1 me cancel:1;2", "1 a-name-that-is-longer-than-any-sender-has queue",
		"1 me grown:" + string(slices.Repeat([]byte("1,"), replica.MessageBytes)) + "1",
	} {
		if sender, h, ok := replica.Decode([]byte(message)); ok {
			t.Errorf("%.40q is read as %+v from %q", message, h, sender)
		}
	}
	if _, h, ok := replica.Decode([]byte("1 me newer:1 queue")); !ok || !h.Queue {
		t.Error("a word of a later version spoils the message")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("1 me queue grown:10,4,1,9 cancel:15"))
	f.Add([]byte("1 me all"))
	f.Add([]byte("1 me grown:-1"))
	f.Fuzz(func(t *testing.T, message []byte) {
		sender, h, ok := replica.Decode(message)
		if !ok {
			return
		}
		for _, ids := range [][]int64{h.Grown, h.Cancel} {
			if !slices.IsSorted(ids) || len(ids) > 0 && ids[0] <= 0 {
				t.Errorf("ids %v", ids)
			}
		}
		again := replica.Encode(sender, h)
		if _, got, ok := replica.Decode(again); !ok || !h.All && !cmp.Equal(h, got, cmpopts.EquateEmpty()) {
			t.Errorf("%q: %+v is read again as %+v", again, h, got)
		}
	})
}
