// Classify texts with an exported student: node classify.mjs FOLDER NAME TEXTS, as JSON; prints {dtype: answers}.
import { env, pipeline } from "@huggingface/transformers";

const [folder, name, texts] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = folder;
const answers = {};
for (const dtype of ["fp32", "q8"]) {
  const model = await pipeline("text-classification", name, { dtype });
  answers[dtype] = await model(JSON.parse(texts));
  await model.dispose();
}
console.log(JSON.stringify(answers));
