"""What was generated: does it look real, is it a copy, was a patient learned by heart, does it show its label?"""
