package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/pgvector/pgvector-go"

	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// leastIndexRecall is how much of the truth an index must find.
const leastIndexRecall = 0.95

// indexRecall answers how many of the ten passages nearest to each question the index
// of a repository finds, on average, against reading all vectors. A repository that is
// too small for an index has none: what is read as a whole is the truth.
func (l *library) indexRecall(ctx context.Context, r knowledge.Repository, questions []question) (recall float64, indexed bool, err error) {
	conn, err := pgx.Connect(ctx, l.database.URL)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := conn.QueryRow(ctx, "SELECT present FROM knowledge_index_use($1)", r.Space.ID).Scan(&indexed); err != nil || !indexed {
		return 0, false, err
	}
	texts := make([]string, len(questions))
	for i, q := range questions {
		texts[i] = q.text
	}
	embedded, err := knowledge.EmbedTexts(ctx, l.embedding, texts, knowledge.EmbedOptions{Dimensions: r.Space.Dimensions, Purpose: llm.PurposeQuery, Cut: true})
	if err != nil {
		return 0, false, err
	}
	exactly := fmt.Sprintf("SELECT chunk_id FROM chunk_vectors_%d ORDER BY embedding::halfvec(%[2]d) <=> $1::text::halfvec(%[2]d) LIMIT %[3]d", r.Space.ID, r.Space.Dimensions, depth)
	right, all := 0, 0
	for _, v := range embedded.Vectors {
		vector := pgvector.NewHalfVector(v).String()
		found, err := ids(ctx, conn, "SELECT chunk_id FROM knowledge_nearest($1, $2, 50, NULL) LIMIT $3", r.Space.ID, vector, depth)
		if err != nil {
			return 0, false, err
		}
		if _, err := conn.Exec(ctx, "SET enable_indexscan = off"); err != nil {
			return 0, false, err
		}
		truth, err := ids(ctx, conn, exactly, vector)
		if err != nil {
			return 0, false, err
		}
		if _, err := conn.Exec(ctx, "RESET enable_indexscan"); err != nil {
			return 0, false, err
		}
		all += len(truth)
		for _, id := range truth {
			if slices.Contains(found, id) {
				right++
			}
		}
	}
	return float64(right) / float64(max(all, 1)), true, nil
}

func ids(ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]int64, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}
