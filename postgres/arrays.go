package postgres

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// This file encodes the arrays of the append statement. pgx reaches every
// element through interfaces, some by reflection, and lets the buffer grow as it
// goes, which was a quarter of the processor time of an append.

// registerArrays takes over the encoding of slices, in the binary format. The
// rest of each array type stays with pgx.
func registerArrays(m *pgtype.Map) {
	register(m, pgtype.Int8ArrayOID, pgtype.Int8OID, func(int64) int { return 8 },
		func(buf []byte, v int64) []byte { return binary.BigEndian.AppendUint64(buf, uint64(v)) })
	register(m, pgtype.TimestamptzArrayOID, pgtype.TimestamptzOID, func(time.Time) int { return 8 },
		func(buf []byte, v time.Time) []byte {
			return binary.BigEndian.AppendUint64(buf, uint64(v.UnixMicro()-postgresEpoch))
		})
	register(m, pgtype.UUIDArrayOID, pgtype.UUIDOID, func(uuid.UUID) int { return len(uuid.UUID{}) },
		func(buf []byte, v uuid.UUID) []byte { return append(buf, v[:]...) })
	register(m, pgtype.TextArrayOID, pgtype.TextOID, func(v string) int { return len(v) },
		func(buf []byte, v string) []byte { return append(buf, v...) })
	register(m, pgtype.JSONBArrayOID, pgtype.JSONBOID, func(v []byte) int {
		if v == nil {
			return null
		}
		return 1 + len(v)
	}, func(buf []byte, v []byte) []byte { return append(append(buf, jsonbVersion), v...) })
}

// Constants of the wire formats.
const (
	null          = -1 // the length of an element that is NULL
	jsonbVersion  = 1  // stands before the text of a jsonb value
	postgresEpoch = 946_684_800_000_000
)

func register[T any](m *pgtype.Map, array, element uint32, size func(T) int, write func(buf []byte, v T) []byte) {
	known, ok := m.TypeForOID(array)
	if !ok {
		return // pgx no longer has the type by itself; it will say so when it is asked to encode it
	}
	m.RegisterType(&pgtype.Type{Name: known.Name, OID: array, Codec: &arrayCodec[T]{known.Codec, element, size, write}})
}

// arrayCodec is a codec of pgx that encodes []T by itself. It is also the plan
// for that.
type arrayCodec[T any] struct {
	pgtype.Codec
	element uint32
	size    func(T) int // of the encoded element in bytes, or null
	write   func(buf []byte, v T) []byte
}

// PlanEncode implements pgtype.Codec.
func (c *arrayCodec[T]) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.([]T); ok && format == pgtype.BinaryFormatCode {
		return c
	}
	return c.Codec.PlanEncode(m, oid, format, value)
}

// Encode implements pgtype.EncodePlan. The format is that of array_recv in
// PostgreSQL's src/backend/utils/adt/arrayfuncs.c.
func (c *arrayCodec[T]) Encode(value any, buf []byte) ([]byte, error) {
	elements, _ := value.([]T) // or there would be no such plan
	if elements == nil {
		return nil, nil
	}
	var hasNull uint32
	bytes := 0
	for _, v := range elements {
		n := c.size(v)
		if n == null {
			hasNull, n = 1, 0
		}
		bytes += 4 + n
	}
	const header = 5 * 4
	buf = slices.Grow(buf, header+bytes)
	buf = binary.BigEndian.AppendUint32(buf, 1) // dimension
	buf = binary.BigEndian.AppendUint32(buf, hasNull)
	buf = binary.BigEndian.AppendUint32(buf, c.element)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(elements)))
	buf = binary.BigEndian.AppendUint32(buf, 1) // the lower bound
	for _, v := range elements {
		n := c.size(v)
		buf = binary.BigEndian.AppendUint32(buf, uint32(int32(n)))
		if n != null {
			buf = c.write(buf, v)
		}
	}
	return buf, nil
}
