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
        values = new byte[Math.min(text.length / size, number("records") + number("warm-up"))][];
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
            properties.put("batch.size", BATCH_BYTES);
            properties.put("max.request.size", 16 * BATCH_BYTES);
            properties.put("buffer.memory", BUFFER_BYTES);
        }
        return properties;
    }

    private void run() throws Exception {
        var serializer = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(properties(), serializer, serializer)) {
            int warmUp = number("warm-up");
            int records = number("records");
            send(producer, 0, warmUp);
            long cpu = processCpu();
            long wall = System.nanoTime();
            send(producer, warmUp, records);
            wall = System.nanoTime() - wall;
            cpu = processCpu() - cpu;
            System.out.printf(
                "{\"cpu_ns\":%d,\"wall_ns\":%d,\"allocations\":0,\"codec_ns\":0}%n", cpu, wall);
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
