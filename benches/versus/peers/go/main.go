// franz-go as one client of benches/versus: the same arguments and the same line of JSON as the Rust clients.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// As in src/job.rs.
const (
	batchBytes  = 1 << 20
	bufferBytes = 64 << 20
	linger      = 5 * time.Millisecond
	keys        = 1 << 16
)

type job struct {
	text             []byte
	bootstrap, topic string
	codec            string
	size             int
	records, warmUp  int
	callers          int
	keyed, defaults  bool
}

type cost struct {
	CPU         int64 `json:"cpu_ns"`
	Wall        int64 `json:"wall_ns"`
	Allocations int64 `json:"allocations"`
	Codec       int64 `json:"codec_ns"`
	WarmUp      int   `json:"warm_up"`
}

func main() {
	cost, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "franz-go:", err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(cost)
}

func parse() (*job, error) {
	var j job
	var text string
	flag.StringVar(&text, "text", "", "file that values are cut from")
	flag.StringVar(&j.bootstrap, "bootstrap", "", "address of a broker")
	flag.StringVar(&j.topic, "topic", "versus", "")
	flag.StringVar(&j.codec, "codec", "none", "")
	flag.IntVar(&j.size, "size", 100, "bytes of a value")
	flag.IntVar(&j.records, "records", 0, "records that are measured")
	flag.IntVar(&j.warmUp, "warm-up", 0, "records before")
	flag.IntVar(&j.callers, "callers", 1, "")
	flag.BoolVar(&j.keyed, "keyed", false, "")
	flag.BoolVar(&j.defaults, "defaults", false, "the client's own settings")
	flag.String("peers", "", "ignored")
	flag.Int("partitions", 0, "ignored")
	flag.Parse()
	var err error
	j.text, err = os.ReadFile(text)
	return &j, err
}

func (j *job) client() (*kgo.Client, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(j.bootstrap),
		kgo.DefaultProduceTopic(j.topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
	}
	if !j.defaults {
		options = append(options,
			kgo.ProducerLinger(linger),
			kgo.ProducerBatchMaxBytes(batchBytes),
			kgo.MaxBufferedBytes(bufferBytes),
			kgo.MaxBufferedRecords(10_000_000),
			// By default it changes the partition every 64 KiB, which would keep its batches small.
			kgo.RecordPartitioner(kgo.UniformBytesPartitioner(batchBytes, true, true, nil)),
		)
		switch j.codec {
		case "none":
			options = append(options, kgo.ProducerBatchCompression(kgo.NoCompression()))
		case "lz4":
			options = append(options, kgo.ProducerBatchCompression(kgo.Lz4Compression()))
		case "zstd":
			options = append(options, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
		default:
			return nil, fmt.Errorf("no codec %s", j.codec)
		}
	}
	return kgo.NewClient(options...)
}

func run() (*cost, error) {
	j, err := parse()
	if err != nil {
		return nil, err
	}
	client, err := j.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := j.send(client, 0, j.warmUp); err != nil {
		return nil, err
	}
	cpu, wall := processCPU(), time.Now()
	if err := j.send(client, j.warmUp, j.records); err != nil {
		return nil, err
	}
	cpu = processCPU() - cpu
	return &cost{CPU: cpu, Wall: time.Since(wall).Nanoseconds(), WarmUp: j.warmUp}, nil
}

// send hands over count records from index first on, a part by each caller, and waits for all acknowledgements.
func (j *job) send(client *kgo.Client, first, count int) error {
	ctx := context.Background()
	var failed atomic.Pointer[error]
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.Store(&err)
		}
	}
	var callers sync.WaitGroup
	for caller := range j.callers {
		callers.Go(func() {
			for index := first + count*caller/j.callers; index < first+count*(caller+1)/j.callers; index++ {
				client.Produce(ctx, &kgo.Record{Key: j.key(index), Value: j.value(index)}, promise)
			}
		})
	}
	callers.Wait()
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (j *job) value(index int) []byte {
	start := index % (len(j.text) / j.size) * j.size
	return j.text[start : start+j.size]
}

func (j *job) key(index int) []byte {
	if !j.keyed {
		return nil
	}
	start := uint64(index) * 0x9e3779b9 >> 7 % keys * 16
	return j.text[start : start+8]
}

// processCPU is user plus system time of this process so far, in nanoseconds.
func processCPU() int64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return usage.Utime.Nano() + usage.Stime.Nano()
}
