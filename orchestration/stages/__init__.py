"""One module per DVC stage: read inputs, call llbnad, write outputs, record in MLflow. No algorithm lives here."""
