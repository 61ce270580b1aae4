// Avro's own library for Java at the command line: `decode` or `encode`, and a schema as JSON. Each line of the input
// is one datum (base64 of its bytes, or its JSON as Avro writes it), and each line of the output its other form; after
// a decoded one stands how many bytes the schema left unread. What it cannot do ends it with Avro's own words.

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.io.JsonEncoder;

public class Datum {
  public static void main(String[] arguments) throws Exception {
    boolean isDecoding = arguments[0].equals("decode");
    Schema schema = new Schema.Parser().parse(arguments[1]);
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      out.println(isDecoding ? decode(schema, Base64.getDecoder().decode(line)) : encode(schema, line));
    }
    out.flush();
  }

  private static String decode(Schema schema, byte[] bytes) throws Exception {
    BinaryDecoder decoder = DecoderFactory.get().binaryDecoder(bytes, null);
    Object datum = new GenericDatumReader<>(schema).read(null, decoder);
    int left = decoder.inputStream().available();
    ByteArrayOutputStream json = new ByteArrayOutputStream();
    JsonEncoder encoder = EncoderFactory.get().jsonEncoder(schema, json);
    new GenericDatumWriter<>(schema).write(datum, encoder);
    encoder.flush();
    return json.toString(StandardCharsets.UTF_8) + "\t" + left;
  }

  private static String encode(Schema schema, String json) throws Exception {
    Object datum = new GenericDatumReader<>(schema).read(null, DecoderFactory.get().jsonDecoder(schema, json));
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(bytes, null);
    new GenericDatumWriter<>(schema).write(datum, encoder);
    encoder.flush();
    return Base64.getEncoder().encodeToString(bytes.toByteArray());
  }
}
