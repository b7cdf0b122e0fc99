package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

// Arrays arrive as pgx would have sent them, and PostgreSQL reads what was meant.
func TestArrays(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // nothing was written
	postgres.RegisterArrays(conn.TypeMap())
	stamp := time.Date(1999, 12, 31, 23, 59, 59, 123456789, time.FixedZone("", -7200))
	id := uuid.Must(uuid.NewV7())
	tests := []struct {
		oid   uint32
		cast  string
		value any
		plain any // the same in a type that pgx encodes as it is
		want  string
	}{
		{pgtype.Int8ArrayOID, "bigint[]", []int64{-1, 0, 1 << 62}, pgtype.FlatArray[int64]{-1, 0, 1 << 62}, "{-1,0,4611686018427387904}"},
		{pgtype.Int8ArrayOID, "bigint[]", []int64{}, pgtype.FlatArray[int64]{}, "{}"},
		{pgtype.TextArrayOID, "text[]", []string{"", "NULL", `a "b", {é}`}, pgtype.FlatArray[string]{"", "NULL", `a "b", {é}`}, `{"","NULL","a \"b\", {é}"}`},
		{pgtype.UUIDArrayOID, "uuid[]", []uuid.UUID{id, {}}, pgtype.FlatArray[[16]byte]{id, {}}, fmt.Sprintf("{%v,%v}", id, uuid.UUID{})},
		{pgtype.TimestamptzArrayOID, "timestamptz[]", []time.Time{stamp}, pgtype.FlatArray[time.Time]{stamp}, `{"2000-01-01 01:59:59.123456+00"}`},
		{pgtype.JSONBArrayOID, "jsonb[]", [][]byte{[]byte(`{"a": 1}`), nil, []byte(`[]`)}, pgtype.FlatArray[[]byte]{[]byte(`{"a": 1}`), nil, []byte(`[]`)}, `{"{\"a\": 1}",NULL,[]}`},
		{pgtype.JSONBArrayOID, "jsonb[]", [][]byte{}, pgtype.FlatArray[[]byte]{}, "{}"},
	}
	for _, tt := range tests {
		taught := pgtype.NewMap()
		postgres.RegisterArrays(taught)
		got, err := taught.Encode(tt.oid, pgtype.BinaryFormatCode, tt.value, []byte("before"))
		if err != nil {
			t.Fatalf("%s: %v", tt.cast, err)
		}
		want, err := pgtype.NewMap().Encode(tt.oid, pgtype.BinaryFormatCode, tt.plain, []byte("before"))
		if err != nil {
			t.Fatalf("%s: %v", tt.cast, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s %v: %s", tt.cast, tt.value, diff)
		}
		var read string
		if err := conn.QueryRow(t.Context(), "SELECT ($1::"+tt.cast+")::text", tt.value).Scan(&read); err != nil {
			t.Fatalf("%s: %v", tt.cast, err)
		}
		if read != tt.want {
			t.Errorf("%s %v: read as %s, want %s", tt.cast, tt.value, read, tt.want)
		}
	}
}

func BenchmarkArrays(b *testing.B) {
	const rows = 33
	ids, seqs, data := make([]uuid.UUID, rows), make([]int64, rows), make([][]byte, rows)
	types, times := make([]string, rows), make([]time.Time, rows)
	for i := range rows {
		ids[i], seqs[i], data[i], types[i], times[i] = uuid.New(), int64(i), make([]byte, 300), "prompt-delta", time.Now()
	}
	m := pgtype.NewMap()
	postgres.RegisterArrays(m)
	b.ReportAllocs()
	for b.Loop() {
		var buf []byte
		for _, p := range []struct {
			oid   uint32
			value any
		}{
			{pgtype.UUIDArrayOID, ids}, {pgtype.Int8ArrayOID, seqs}, {pgtype.JSONBArrayOID, data},
			{pgtype.TextArrayOID, types}, {pgtype.TimestamptzArrayOID, times},
		} {
			var err error
			if buf, err = m.Encode(p.oid, pgtype.BinaryFormatCode, p.value, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}
