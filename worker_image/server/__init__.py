"""The model server: loads one model version, answers Open Inference Protocol v2 and TensorFlow Serving v1 over HTTP."""
