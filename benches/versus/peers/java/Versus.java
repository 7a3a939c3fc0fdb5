import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client as one client of benches/versus: the same arguments and line of JSON as the Rust clients. */
public final class Versus {
    // As in src/job.rs.
    private static final int BATCH_BYTES = 1 << 20;
    private static final int BUFFER_BYTES = 64 << 20;
    private static final int LINGER_MS = 5;
    private static final int KEYS = 1 << 16;

    /** It compiles itself while it runs: it runs before the measuring until it has used so much CPU time. */
    private static final long WARM_UP_CPU_NS = 2_500_000_000L;
    /** Unless it waits most of the time. */
    private static final long WARM_UP_WALL_NS = 5_000_000_000L;

    private final Map<String, String> arguments = new HashMap<>();
    private final String topic;
    private final int callers;
    /** Cut before the measuring begins: a record's value has to be an array of its own here. */
    private final byte[][] values;
    /** Null in a run without keys. */
    private final byte[][] keys;

    public static void main(String[] words) throws Exception {
        new Versus(words).run();
    }

    private Versus(String[] words) throws Exception {
        for (int at = 0; at < words.length; at++) {
            String flag = words[at].substring(2);
            boolean alone = flag.equals("keyed") || flag.equals("defaults");
            arguments.put(flag, alone ? "true" : words[++at]);
        }
        topic = arguments.get("topic");
        callers = number("callers");
        int size = number("size");
        byte[] text = Files.readAllBytes(Path.of(arguments.get("text")));
        values = new byte[text.length / size][];
        for (int at = 0; at < values.length; at++) {
            values[at] = Arrays.copyOfRange(text, at * size, (at + 1) * size);
        }
        keys = arguments.containsKey("keyed") ? new byte[KEYS][] : null;
        for (int at = 0; keys != null && at < KEYS; at++) {
            keys[at] = Arrays.copyOfRange(text, at * 16, at * 16 + 8);
        }
    }

    private int number(String flag) {
        return Integer.parseInt(arguments.get(flag));
    }

    private Properties properties() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments.get("bootstrap"));
        properties.put("acks", "all");
        properties.put("enable.idempotence", "true");
        if (!arguments.containsKey("defaults")) {
            properties.put("compression.type", arguments.get("codec"));
            properties.put("linger.ms", LINGER_MS);
            properties.put("batch.size", batchBytes());
            properties.put("max.request.size", 2 * BATCH_BYTES);
            // With the 128 KiB that it asks for by itself, the JDK copies what is left of a large request again
            // and again, once for each time that the socket takes a part of it.
            properties.put("send.buffer.bytes", -1);
            properties.put("buffer.memory", BUFFER_BYTES);
        }
        return properties;
    }

    /** It takes the memory of a whole batch with a partition's first record: all must fit at the same time. */
    private int batchBytes() {
        return keys == null ? BATCH_BYTES : Math.min(BATCH_BYTES, BUFFER_BYTES / number("partitions"));
    }

    private void run() throws Exception {
        var serializer = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(properties(), serializer, serializer)) {
            int warmUp = 0;
            int records = number("records");
            long wall = System.nanoTime();
            do {
                send(producer, warmUp, number("warm-up"));
                warmUp += number("warm-up");
            } while (processCpu() < WARM_UP_CPU_NS && System.nanoTime() - wall < WARM_UP_WALL_NS);
            long cpu = processCpu();
            wall = System.nanoTime();
            send(producer, warmUp, records);
            wall = System.nanoTime() - wall;
            cpu = processCpu() - cpu;
            System.out.printf(
                "{\"cpu_ns\":%d,\"wall_ns\":%d,\"allocations\":0,\"codec_ns\":0,\"warm_up\":%d}%n",
                cpu, wall, warmUp);
        }
    }

    /** Hands over records, a part by each caller, and waits for all acknowledgements. */
    private void send(KafkaProducer<byte[], byte[]> producer, int first, int count) throws Exception {
        var failure = new AtomicReference<Exception>();
        Callback callback = (metadata, exception) -> {
            if (exception != null) {
                failure.set(exception);
            }
        };
        Thread[] threads = new Thread[callers];
        for (int caller = 0; caller < callers; caller++) {
            int begin = first + (int) ((long) count * caller / callers);
            int end = first + (int) ((long) count * (caller + 1) / callers);
            threads[caller] = new Thread(() -> sendRange(producer, begin, end, callback));
            threads[caller].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        producer.flush();
        if (failure.get() != null) {
            throw failure.get();
        }
    }

    private void sendRange(
            KafkaProducer<byte[], byte[]> producer, int begin, int end, Callback callback) {
        for (int index = begin; index < end; index++) {
            byte[] key = keys == null ? null : keys[(int) ((index * 0x9e3779b9L >>> 7) % KEYS)];
            byte[] value = values[index % values.length];
            producer.send(new ProducerRecord<>(topic, key, value), callback);
        }
    }

    /** User plus system time of this process so far, all its threads, in nanoseconds. */
    private static long processCpu() {
        var system = ManagementFactory.getOperatingSystemMXBean();
        return ((com.sun.management.OperatingSystemMXBean) system).getProcessCpuTime();
    }
}
